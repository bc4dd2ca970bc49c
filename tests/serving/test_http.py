"""What clients see: tokens, refusals, lists, files, events."""

import json
import os

import pytest
from made_service import MIB, SHOWN, fake, planned, served, settings, state, until
from test_pipeline import write_inputs

from stscale.serving import Service
from stscale.serving.examiner import Examiner


@pytest.fixture
def client(tmp_path):
    with served(Service(settings(tmp_path), examine=planned(100))) as client:
        yield client


@pytest.fixture
def done(client, tmp_path):
    """A job that has ended, with a run folder."""
    number = client.post("/jobs", json={"command": "integrate", "slices": ["s0"], "out": "study"}).json()["id"]
    client.post(f"/jobs/{number}/cancel")
    run = tmp_path / "runs" / "study"
    (run / "figures").mkdir(parents=True)
    (run / "manifest.json").write_text('{"stages": {}}', encoding="utf-8")
    (run / "report.html").write_text("<h1>Ein Bericht: µm</h1>", encoding="utf-8")
    (run / "figures" / "a b.png").write_bytes(b"0123456789")
    return number


def submitted(client, **changes):
    return client.post("/jobs", json={"command": "integrate", "slices": ["s0"], **changes})


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Basic YTpi", "bearer a token of twenty-six letterS", "Bearer ü"]
)
@pytest.mark.parametrize("path", ["/jobs", "/machine", "/jobs/1/files/manifest.json", "/nothing"])
def test_nothing_without_the_token(client, done, header, path):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    client.headers.clear()
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "show the service's token: Authorization: Bearer TOKEN"}
    assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/jobs", content=b"{", headers=headers).status_code == 401  # before the body is looked at


def test_page_and_health_need_none_and_load_nothing_from_elsewhere(client):
    client.headers.clear()
    assert client.get("/health").json() == {"status": "ok", "token": True}
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "http" not in policy
    assert "//" not in answer.text.replace("// text only", "").replace(";  // a report", "")
    assert client.get("/docs").status_code == 401


def test_without_a_token_only_local_names_are_heard(tmp_path):
    with served(Service(settings(tmp_path, token=None), examine=planned(1))) as client:
        client.headers.clear()
        assert client.get("/jobs").status_code == 200
        assert client.get("/jobs", headers={"Host": "evil.example"}).status_code == 400
        assert client.get("/health").json()["token"] is False


def test_a_body_has_its_size(client, monkeypatch):
    answer = client.post("/jobs", content=b'{"command": "' + b"x" * (17 << 20) + b'"}')
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../outside", "../outside lies outside the folders of this service"),
        ("link", "link lies outside the folders of this service"),
        ("link/deep", "link/deep lies outside"),
        ("{outside}", "lies outside the folders of this service"),
        ("../*", "lies outside the folders of this service"),
        ("nothing", "nothing does not exist in the folders of this service"),
        ("loop", "loop"),
        ("s0\0", "is no path"),
        (".hidden", ".hidden: hidden folders and files are not used here"),
    ],
)
def test_slices_come_from_their_folders(client, tmp_path, path, said):
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "slices" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "slices" / "loop").symlink_to(tmp_path / "slices" / "loop")
    (tmp_path / "slices" / ".hidden").mkdir()
    answer = submitted(client, slices=[path.format(outside=tmp_path / "outside")])
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert client.get("/jobs").json()["total"] == 0


@pytest.mark.parametrize("out", ["../x", "{outside}", ".", "a/../..", ".stscale-serve", "a/.b", "link/run"])
def test_runs_go_into_their_folder(client, tmp_path, out):
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    assert submitted(client, out=out.format(outside=tmp_path / "x")).status_code == 422


def test_paths_inside_are_taken_as_they_are(client, tmp_path):
    (tmp_path / "slices" / "same").symlink_to(tmp_path / "slices" / "s3")
    answer = submitted(client, slices=["s[12]", str(tmp_path / "slices" / "s0"), "same"], out="a/b").json()
    row = client.app.state.service.store.get(answer["id"])
    real = tmp_path.resolve()
    assert row["reads"] == [str(real / "slices" / name) for name in ("s1", "s2", "s0", "s3")]
    assert answer["out"] == str(real / "runs" / "a" / "b")
    assert row["words"][0] == "integrate"
    assert row["words"][1:5] == row["reads"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"train": {"stepz": 7}}, ["--set", "train.stepz=7"]),
        ({"train": {"steps": -7}}, ["--set", "train.steps=-7"]),
        ({"trian": {"steps": 7}}, ["--set", "trian.steps=7"]),
        ({"run": {"method": "magic"}}, ["--method", "magic"]),
        ({"run": {"max_ram": "lots"}}, ["--max-ram", "lots"]),
        ({"preset": "nature"}, ["--preset", "nature"]),
        ("[domains]\nk = 0\n", ["-k", "0"]),
        ({"domains": {"method": "assignment"}}, ["--set", "domains.method=assignment"]),
    ],
)
def test_options_are_refused_with_the_line_of_the_command_line(client, stscale_, tmp_path, config, words):
    code, _, error = stscale_("integrate", tmp_path / "slices" / "s0", "-o", tmp_path / "runs" / "x", *words)
    answer = submitted(client, config=config)
    assert code == 2
    assert (answer.status_code, f"error: {answer.json()['detail']}\n") == (422, error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"command": "destroy"}, "command: Input should be 'integrate', 'align' or 'map'"),
        ({"command": "integrate"}, "no slices given"),
        ({"command": "integrate", "slices": ["s0"], "fresh": True}, "fresh: Extra inputs are not permitted"),
        ({"command": "integrate", "slices": ["s0"], "run": "x"}, "integrate takes no run"),
        ({"command": "integrate", "slices": ["s0"], "restat": True}, "integrate takes no restat"),
        ({"command": "map", "slices": ["s0"]}, "map needs run: a finished run"),
        ({"command": "map", "slices": ["s0"], "run": "none"}, "none is no folder in the folder of runs"),
        ({"command": "align", "slices": ["s0"], "transfer_genes": ["A,B"]}, "without commas"),
        ({"command": "integrate", "slices": ["s0"], "config": {"run": {"scheduler": "tcp://x:1"}}}, "run.scheduler"),
        ({"command": "integrate", "slices": ["s0"], "config": {"train": {"steps": None}}}, "null is no value"),
        ({"command": "integrate", "slices": ["s0"], "config": "a = ["}, "config is not TOML"),
        ({"command": "integrate", "slices": ["s0"], "config": "steps = 3"}, "stands outside a table"),
        ({"command": "align", "slices": ["s0"], "config": {"align": {"pairs": "../../p.toml"}}}, "does not exist in"),
    ],
)
def test_what_makes_no_sense_is_one_line(client, body, said):
    answer = client.post("/jobs", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_the_plan_decides_and_speaks_as_the_command_does(tmp_path, stscale_):
    given = settings(tmp_path, memory=50 * MIB, devices=(None,))
    write_inputs(tmp_path / "slices")
    with served(Service(given, examine=Examiner(given))) as client:
        answer = submitted(client, slices=["*.h5ad"])
        assert answer.status_code == 422
        found = answer.json()
        assert found["planned"]["ram_mb"] > 50
        assert "of memory and jobs here have 50M; give run.max_ram = " in found["detail"]
        config = {"domains": {"k": 4000}}
        wrong = submitted(client, slices=["*.h5ad"], config=config)
        paths = sorted((tmp_path / "slices").glob("*.h5ad"))
        _, _, error = stscale_("integrate", *paths, "-o", tmp_path / "runs" / "x", "-k", "4000")
        assert f"error: {wrong.json()['detail']}\n" == error
        (tmp_path / "runs" / "taken").mkdir()
        (tmp_path / "runs" / "taken" / "file").touch()
        taken = submitted(client, slices=["*.h5ad"], out="taken").json()["detail"]
        assert taken.endswith("taken is not empty and not a run of stscale; give another folder with -o")
        assert client.get("/jobs").json() == {"jobs": [], "total": 0}


def test_folders_in_use(client):
    assert submitted(client, out="a/b").status_code == 201
    for out in ("a/b", "a", "a/b/c"):
        answer = submitted(client, out=out)
        assert answer.status_code == 409
        assert "is in use by job 1" in answer.json()["detail"]
    assert submitted(client, out="a/c").status_code == 201
    client.post("/jobs/1/cancel")
    assert submitted(client, out="a/b").status_code == 201


def test_lists_by_page_and_state(client):
    for k in range(5):
        assert submitted(client).json()["out"].endswith(f"integrate-{k + 1}")
    client.post("/jobs/2/cancel")
    page = client.get("/jobs?limit=2&offset=1").json()
    assert ([job["id"] for job in page["jobs"]], page["total"]) == ([4, 3], 5)
    page = client.get("/jobs?state=cancelled&state=failed").json()
    assert ([job["id"] for job in page["jobs"]], page["total"]) == ([2], 1)
    assert client.get("/jobs?limit=0").status_code == 422
    assert client.get("/jobs/6").json() == {"detail": "there is no job 6"}
    assert client.delete("/jobs/2").status_code == 204
    assert submitted(client).json()["id"] == 6  # a number is never given twice


def test_report_and_files(client, done, tmp_path):
    run = tmp_path / "runs" / "study"
    (run / "leak.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (run / "out").symlink_to(tmp_path)
    (run / ".integrated.zarr.x.part").mkdir()
    (run / ".integrated.zarr.x.part" / "half").touch()
    os.mkfifo(run / "pipe")
    report = client.get(f"/jobs/{done}/report")
    assert report.text == "<h1>Ein Bericht: µm</h1>"
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert report.headers["content-security-policy"].startswith("sandbox")
    page = client.get(f"/jobs/{done}/files").json()
    assert [f["path"] for f in page["files"]] == ["figures/a b.png", "manifest.json", "report.html"]
    assert client.get(f"/jobs/{done}/files?limit=1&offset=1").json()["files"][0]["path"] == "manifest.json"
    picture = client.get(f"/jobs/{done}/files/figures/a b.png")
    assert picture.content == b"0123456789"
    assert picture.headers["content-disposition"].startswith("attachment")
    part = client.get(f"/jobs/{done}/files/figures/a b.png", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    for path in ("leak.txt", "out/secret", "../../secret", "figures", "figures/", "/etc/passwd", "", ".", "pipe"):
        wrong = client.get(f"/jobs/{done}/files/" + path.replace("/", "%2F").replace(".", "%2E"))
        assert wrong.status_code == 404, path
    for path in (".integrated.zarr.x.part/half", "figures/%00", "manifest.json/x"):
        assert client.get(f"/jobs/{done}/files/{path}").status_code == 404


def test_delete_with_and_without_files(client, done, tmp_path):
    run = tmp_path / "runs" / "study"
    journal = tmp_path / "state" / "jobs" / str(done)
    waiting = submitted(client, out="other").json()["id"]
    answer = client.delete(f"/jobs/{waiting}")
    assert (answer.status_code, answer.json()["detail"]) == (409, f"job {waiting} has not ended; cancel it first")
    assert journal.is_dir()
    assert client.delete(f"/jobs/{done}").status_code == 204
    assert run.is_dir()
    assert not journal.exists()
    assert client.get(f"/jobs/{done}").status_code == 404
    again = submitted(client, out="study").json()["id"]
    assert client.delete(f"/jobs/{again}?files=true").status_code == 409
    client.post(f"/jobs/{again}/cancel")
    follower = submitted(client, command="map", run="study", slices=["s1"]).json()["id"]
    held = client.delete(f"/jobs/{again}?files=true")
    assert (held.status_code, "without its files" in held.json()["detail"]) == (409, True)
    client.post(f"/jobs/{follower}/cancel")
    assert client.delete(f"/jobs/{again}?files=true").status_code == 204
    assert not run.exists()


def events(text: str) -> list[dict[str, str]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block if not line.startswith(":")) for block in blocks]


def test_events_to_the_end_and_from_where_a_client_was(tmp_path, monkeypatch):
    fake(monkeypatch, tmp_path)
    with served(Service(settings(tmp_path, devices=(None,)), examine=planned(1))) as client:
        submitted(client)
        until(lambda: client.get("/jobs/1").json()["progress"]["step"])
        (tmp_path / "slices" / "s0" / "go").touch()
        answer = client.get("/jobs/1/events")  # it lasts until the job ends
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events(answer.text)
        assert [e.get("id") for e in told] == ["1", "2", "3", None]
        assert [json.loads(e["data"]).get("event") for e in told[:3]] == ["stage", "step", "done"]
        assert told[3]["event"] == "end"
        assert json.loads(told[3]["data"]) == {"state": "done", "exit_code": 0, "error": None}
        assert state(client, 1) == "done"
        rest = events(client.get("/jobs/1/events", headers={"Last-Event-ID": "2"}).text)
        assert [e.get("id") for e in rest] == ["3", None]
        with client.app.state.service.journal(1).events.open("a", encoding="utf-8") as file:
            file.write('{"half\n{"time": 1, "event": "note", "text": "a\\u2028b"}\n{"event": "unfin')
        rest = events(client.get("/jobs/1/events", headers={"Last-Event-ID": "3"}).text)
        assert [e.get("id") for e in rest] == ["5", None]  # what is no event has a number and is not sent
        assert client.get("/jobs/1/events", headers={"Last-Event-ID": "x"}).status_code == 422
        assert client.get("/jobs/9/events", headers=SHOWN).status_code == 404
