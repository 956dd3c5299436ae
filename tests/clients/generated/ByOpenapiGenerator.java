import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.KindsApi;
import org.openapitools.client.api.NotesApi;
import org.openapitools.client.api.NumbersApi;
import org.openapitools.client.model.*;

/** Predicts with the Java client of OpenAPI Generator by V2, whose answer is one type. */
public class ByOpenapiGenerator {
    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        ObjectMapper mapper = client.getObjectMapper();
        JsonNode given = mapper.readTree(System.in);
        client.updateBaseUri(given.get("url").asText());
        JsonNode bodies = given.get("infer");
        Map<String, Object> answers = new LinkedHashMap<>();
        NumbersInferRequest numbers = mapper.treeToValue(bodies.get("numbers"), NumbersInferRequest.class);
        answers.put("numbers", new NumbersApi(client).inferNumbers(numbers, null, null).getOutputs().get(0).getData());
        KindsInferRequest kinds = mapper.treeToValue(bodies.get("kinds"), KindsInferRequest.class);
        answers.put("kinds", new KindsApi(client).inferKinds(kinds, null, null).getOutputs().get(0).getData());
        NotesInferRequest notes = mapper.treeToValue(bodies.get("notes"), NotesInferRequest.class);
        answers.put("notes", new NotesApi(client).inferNotes(notes, null, null).getOutputs().get(0).getData());
        System.out.println(mapper.writeValueAsString(answers));
    }
}
