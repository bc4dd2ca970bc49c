"""The service does what its own description says, whatever is asked."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from made_service import SHOWN, planned, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from stscale.serving import Service, create_app


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A service with jobs in several states, all of them with files, none of them running."""
    folder = tmp_path_factory.mktemp("service")
    service = Service(settings(folder), examine=planned(1))
    service.open()
    from stscale.serving.schemas import Submission

    for k in range(3):
        service.submit(Submission(command="integrate", slices=[f"s{k}"], out=f"{k}"))
        (folder / "runs" / f"{k}").mkdir()
        (folder / "runs" / f"{k}" / "report.html").write_text("<p>", encoding="utf-8")
    service.cancel(1)
    service.cancel(2)
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(service))
    service.close()


OPERATIONS = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/machine"),
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("GET", "/jobs/{number}"),
    ("DELETE", "/jobs/{number}"),
    ("POST", "/jobs/{number}/cancel"),
    ("GET", "/jobs/{number}/events"),
    ("GET", "/jobs/{number}/report"),
    ("GET", "/jobs/{number}/files"),
    ("GET", "/jobs/{number}/files/{path}"),
]


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_those_described(described, method, path, mode):
    """Requests that fit the description, and requests that do not."""
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and not (list(operation.iter_parameters()) or operation.body):
        return

    @given(case=operation.as_strategy(generation_mode=mode))
    @examples(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        left_out = [negative_data_rejection]  # what is not described in query and headers is not looked at
        if mode is GenerationMode.POSITIVE:
            if "number" in case.path_parameters:  # of jobs that are there, most of them; one whose events end
                case.path_parameters["number"] = (
                    1 if path.endswith("/events") else 1 + case.path_parameters["number"] % 4
                )
            # whether slices are there is not in the description
            left_out = [positive_data_acceptance] if method == "POST" else []
        case.call_and_validate(headers=SHOWN, excluded_checks=left_out)

    check()


def test_every_answer_has_a_schema(described):
    from starlette.testclient import TestClient

    document = TestClient(described.app).get("/openapi.json").json()
    operations = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert sorted(operations) == sorted(OPERATIONS)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            if path in ("/", "/health"):
                continue
            assert {"401", "422"} <= set(answers), (path, method)
            assert ("404" in answers) == ("{number}" in path), (path, method)
            for code in ("401", "404", "409", "422"):
                if code in answers:
                    assert answers[code]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
            assert operation["security"] == [{"HTTPBearer": []}]
    assert "409" in document["paths"]["/jobs"]["post"]["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
