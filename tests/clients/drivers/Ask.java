import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;

/** Sends bodies with java.net.http.HttpClient. Standard input has a line for each: spelling, kind, version, URL, type, body. */
public class Ask {
    public static void main(String[] arguments) throws Exception {
        String cases = arguments[0];
        HttpClient newest = HttpClient.newHttpClient(); // offers HTTP/2 by an upgrade, as it does by default
        HttpClient old = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        List<String> lines = new java.io.BufferedReader(new java.io.InputStreamReader(System.in, StandardCharsets.UTF_8)).lines().toList();
        for (String line : lines) {
            String[] parts = line.split("\t");
            String query = "?spelling=" + encoded(parts[0]) + "&kind=" + encoded(parts[1]);
            old.send(HttpRequest.newBuilder(URI.create(cases + query)).build(), HttpResponse.BodyHandlers.discarding());
            HttpClient client = parts[2].equals("2") ? newest : old;
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(parts[3]))
                .POST(HttpRequest.BodyPublishers.ofByteArray(Base64.getDecoder().decode(parts[5])));
            if (!parts[4].equals("-")) {
                request.header("Content-Type", parts[4]);
            }
            HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            System.out.println(parts[0] + "\t" + parts[1] + "\t" + answer.statusCode() + "\t" + Base64.getEncoder().encodeToString(answer.body()));
        }
    }

    private static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8);
    }
}
