"""What can be known of image, compose file and Kubernetes job without an engine: linters, schemas, one truth."""

import fnmatch
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def steps():
    spec = importlib.util.spec_from_file_location("steps", DOCKER / "steps.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["steps"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["steps"]


def planned(steps, base: str, **given: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    values: dict[str, str] = {}
    recipe = steps.Recipe(DOCKER / "Dockerfile", {**given, "BASE": base})
    return list(steps.commands(recipe, Path("/there"), Path("/tmp"), values)), values


def tool(*words: object) -> subprocess.CompletedProcess[str]:
    name, *rest = map(str, words)
    program = BIN / name
    assert program.exists(), f"{name} is missing: pip install -e '.[test]'"
    return subprocess.run([program, *rest], capture_output=True, text=True, check=False)


def job() -> dict:
    return next(d for d in yaml.safe_load_all((DOCKER / "job.yaml").read_text("utf-8")) if d["kind"] == "Job")


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))


def test_hadolint_has_nothing_to_say_and_would_say_something(tmp_path):
    done = tool("hadolint", DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    (tmp_path / "Dockerfile").write_text(text.replace(":3.11.13-slim-bookworm", ""), encoding="utf-8")
    assert "DL3006" in tool("hadolint", tmp_path / "Dockerfile").stdout


def test_compose_fits_its_schema(tmp_path):
    words = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = tool(*words, DOCKER / "compose.yml")
    assert done.returncode == 0, done.stdout
    wrong = compose()
    wrong["services"]["job"]["comand"] = []
    (tmp_path / "compose.yml").write_text(yaml.safe_dump(wrong), encoding="utf-8")
    assert "comand" in tool(*words, tmp_path / "compose.yml").stdout


def test_the_kubernetes_objects_fit_their_schemas(tmp_path):
    words = ("kubernetes-validate", "--strict")
    done = tool(*words, DOCKER / "job.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (DOCKER / "job.yaml").read_text(encoding="utf-8")
    (tmp_path / "job.yaml").write_text(text.replace("restartPolicy:", "restartPolice:"), encoding="utf-8")
    assert tool(*words, tmp_path / "job.yaml").returncode != 0


def test_every_base_image_has_a_tag():
    parents = re.findall(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    images = [p for p in parents if "/" in p or ":" in p]
    assert len(images) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", image) for image in images)


def test_the_image_runs_the_command_as_a_plain_user_in_its_volume(steps):
    recipe = steps.Recipe(DOCKER / "Dockerfile", {})
    last = {i.word: i.text for i in recipe.last.instructions}
    assert recipe.entry()[0] == "stscale"
    assert (last["USER"], last["VOLUME"], last["WORKDIR"]) == ("10001:10001", "/data", "/data")
    assert "HEALTHCHECK" not in last
    order = [i.word for i in recipe.last.instructions]
    assert order.index("USER") > order.index("COPY")  # the environment belongs to root: the job cannot change it
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert recipe.entry()[0] in scripts


def test_cuda_is_in_the_cuda_image_alone(steps):
    texts = {base: "\n".join(text for _, text in planned(steps, base)[0]) for base in ("cpu", "cuda")}
    for word in ("faiss-gpu", "PYG_WHEELS", "TORCH_CUDA"):
        assert word in texts["cuda"]
        assert word not in texts["cpu"]
    assert "TORCH_CPU" not in texts["cuda"]
    values = {base: planned(steps, base)[1] for base in ("cpu", "cuda")}
    assert values["cpu"]["TORCH_CPU"].endswith("/cpu")
    assert values["cuda"]["CUDA"] == "cu128"  # faiss-gpu's CUDA 12
    assert values["cuda"]["PYG_PACKAGES"] == "pyg-lib torch-sparse"


def test_steps_follow_the_dockerfile(steps, tmp_path):
    """Every pip line of the file is run for one of the bases, and nothing that needs root."""
    ran = {text for base in ("cpu", "cuda") for kind, text in planned(steps, base)[0] if kind == "run"}
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    written = re.findall(r"^RUN (.*pip.*|.*venv \S+)$", text, flags=re.MULTILINE)
    assert len(written) == 4
    assert {" ".join(line.split()) for line in written} == {" ".join(line.split()) for line in ran}
    found, values = planned(steps, "cpu", TORCH_CPU="file:///mirror")
    assert values["TORCH_CPU"] == "file:///mirror"
    assert values["ENVIRONMENT"] == "/there"
    assert values["PATH"].startswith("/there/bin:")
    left_out = [text for kind, text in planned(steps, "cuda")[0] if kind == "left out"]
    assert len(left_out) == 1
    assert "pip" not in left_out[0]
    assert not [t for kind, t in found if kind == "left out"]
    odd = tmp_path / "Dockerfile"
    odd.write_text(text.replace("COPY constraints.txt ./", "ADD constraints.txt ./"), encoding="utf-8")
    with pytest.raises(ValueError, match="ADD has no meaning here"):
        list(steps.commands(steps.Recipe(odd, {"BASE": "cpu"}), Path("/there"), tmp_path, {}))


def test_what_is_copied_is_in_the_context_and_enough_for_a_wheel(steps, tmp_path):
    """.dockerignore lets through what COPY names; of that alone, the wheel holds every module."""
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in kept
    copied = [word for kind, text in planned(steps, "cpu")[0] if kind == "copy" for word in text.split()[:-1]]
    for name in copied:
        assert f"!{name}" in kept, name
    work = tmp_path / "build"
    work.mkdir()
    for kind, text in planned(steps, "cpu")[0]:
        if kind == "copy":
            steps.copy(text, work)
    told = tomllib.loads((work / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    places = {name: told["package-dir"].get(name, name.replace(".", "/")) for name in told["packages"]}
    assert all((work / place / "__init__.py").exists() for place in places.values())
    assert not fnmatch.filter([p.name for p in work.rglob("*")], "__pycache__")
    there = [p for p in (work / "stscale").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert sorted(str(p.relative_to(work / "stscale")) for p in there) == sorted(named["stscale"])
    shutil.rmtree(work)


def test_a_job_is_retried_where_that_helps_and_not_where_it_does_not():
    spec = job()["spec"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what a failure policy needs
    rules = {
        tuple(r["onExitCodes"]["values"]): r["action"] for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r
    }
    assert rules == {(2,): "FailJob", (130, 143): "Ignore"}
    container = pod["containers"][0]
    assert {r["onExitCodes"]["containerName"] for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r} == {
        container["name"]
    }
    assert spec["backoffLimit"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    out = container["args"][container["args"].index("--out") + 1]
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert any(out.startswith(path) for path, m in mounts.items() if not m.get("readOnly"))
    assert mounts["/slices"]["readOnly"]
    assert {m["name"] for m in mounts.values()} == {v["name"] for v in pod["volumes"]}
    assert pod["securityContext"]["runAsUser"] == 10001


def test_the_commands_are_known_options():
    """A typo in an option would be found by the cluster at night."""
    words = [job()["spec"]["template"]["spec"]["containers"][0]["args"]]
    words += [s["command"] for s in compose()["services"].values() if "command" in s]
    assert sorted(arguments[0] for arguments in words) == ["integrate", "integrate", "integrate", "serve"]
    known = {}
    for verb in ("integrate", "serve"):
        line = [sys.executable, "-m", "stscale_cli", verb, "--help"]
        done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
        known[verb] = set(re.findall(r"--[a-z-]+", done.stdout))
    for arguments in words:
        assert {a for a in arguments if a.startswith("--")} <= known[arguments[0]], json.dumps(arguments)


def test_the_service_answers_where_the_image_says_and_asks_for_a_token():
    """Nothing is published beyond this machine, and no token is written down."""
    told = compose()["services"]["serve"]
    recipe = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", recipe, flags=re.MULTILINE)
    assert told["command"][told["command"].index("--port") + 1] == exposed
    (published,) = told["ports"]
    assert published.startswith("127.0.0.1:")
    assert published.endswith(f":{exposed}")
    assert told["environment"] == {"STSCALE_TOKEN": "${STSCALE_TOKEN:-}"}
    assert ",serve]" in recipe
