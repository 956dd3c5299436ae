"""Trust by library: the settings, the refusal that prints the line, and the marks that stand for boosters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tableside import setting_texts, settings
from tableside.contracts import native_boosters, object_graph
from tableside.errors import ContractBroken, FailureKind, SettingsError
from tableside.runtimes import trusted_types
from tableside.runtimes.library_types import LIBRARIES
from tableside.runtimes.trusted_types import TRUSTED

pytestmark = pytest.mark.no_greenlets


def test_the_settings_name_each_library_with_a_list() -> None:
    """The values that the setting accepts are those that have a reviewed list, and each list names its own package."""
    assert set(setting_texts.LIBRARIES) == set(LIBRARIES)
    for library, types in LIBRARIES.items():
        assert {kind.partition(".")[0] for kind in types} == {
            {"imbalanced-learn": "imblearn", "feature-engine": "feature_engine"}.get(library, library)
        }


def test_another_library_is_refused_with_those_that_are_known() -> None:
    """A misspelt library is refused at boot, by its variable."""
    with pytest.raises(SettingsError, match=r"TRUSTED_LIBRARIES: expected libraries .*: xgboost, lightgbm, catboost"):
        settings.load({"TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES": "xgbost"})
    read = settings.load({"TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES": "xgboost, catboost"})
    assert read.repository.trusted_libraries == ("xgboost", "catboost")


def test_the_refusal_prints_the_line_with_what_is_trusted_already() -> None:
    """Pasting the line keeps the libraries that were trusted before; a type on no list is named apart."""
    allowed = TRUSTED | set(trusted_types.expand((), ("lightgbm",)))
    with pytest.raises(ContractBroken) as refused:
        trusted_types.check("model.skops", ["xgboost.sklearn.XGBClassifier", "mine.A"], allowed)
    text = str(refused.value)
    assert refused.value.failure_kind is FailureKind.UNTRUSTED
    assert 'trusted_libraries = ["lightgbm", "xgboost"]' in text
    assert "TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES=lightgbm,xgboost" in text
    assert text.endswith("If you also trust mine.A, add them to repository.trusted_types")
    trusted_types.check("model.skops", ["xgboost.sklearn.XGBClassifier"], trusted_types.expand((), ("xgboost",)))


def test_objects_are_replaced_wherever_they_are() -> None:
    """In lists, tuples, dicts, arrays and attributes; one object in two places is replaced by one object."""
    old, new = SimpleNamespace(), SimpleNamespace(kept=1)
    cells = np.array([old, 1], dtype=object)
    root = SimpleNamespace(steps=[("a", old)], named={"a": old}, cells=cells, inner=SimpleNamespace(part=old))
    assert object_graph.replace(root, lambda value: new if value is old else value) is root
    assert (root.steps, root.named["a"], root.cells[0], root.inner.part) == ([("a", new)], new, new, new)
    assert object_graph.replace(old, lambda value: new if value is old else value) is new


@pytest.mark.parametrize("file", ["../booster-0.ubj", "booster-0.pkl", "/etc/passwd"])
def test_a_mark_names_only_a_booster_beside_the_artifact(file: str, tmp_path: Path) -> None:
    """Another path, or a class that is no booster, is damage; nothing is read or imported."""
    mark = {native_boosters.MARK: file, "class": "xgboost.core.Booster", "attributes": {}}
    assert native_boosters.classes([mark]) == {"xgboost.core.Booster"}
    with pytest.raises(native_boosters.BoosterError) as refused:
        native_boosters.attach([mark], str(tmp_path))
    assert refused.value.kind == "damaged"
    other = {native_boosters.MARK: "booster-0.ubj", "class": "os.system", "attributes": {}}
    with pytest.raises(native_boosters.BoosterError):
        native_boosters.attach(other, str(tmp_path))
