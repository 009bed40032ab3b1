"""Hubs that lie: whatever one answers, or a repository says of itself, ends in a checkpoint or an error of ours.

Each attack pulls a checkpoint of the tiny zoo from a local hub that spoils one answer, or whose repository asks for
code. After it, nothing may lie outside the folders of the cache and of the records, and no other server may have seen
the token.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import get_backend
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.hub import Puller
from diffusiongpt.settings import Settings, load_settings
from diffusiongpt.testing import TINY_FOLDER, Fault, HubHandler, LocalHub
from diffusiongpt.zoo import Expert
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Case = Callable[[random.Random], tuple[str, Callable[[Path], None]]]


KIND = "hub"
REPO = "t/x"
TOKEN = "hf_this_goes_to_one_server"  # noqa: S105  # of no account
HASTE_S = 0.5
"""What a hub is waited for here; a real one is given ten to thirty seconds."""

LONGEST_S = 20.0
"""Far above what the limits of a pull add up to with that haste, and far below without end."""

UNET = "unet/diffusion_pytorch_model.safetensors"
EVIL_NAMES = (
    "../../../bystander/.bashrc",
    "/tmp/evil",  # noqa: S108  # never written
    "..",
    ".",
    "a/../../b",
    "a//b",
    "C:\\evil",
    "..\\..\\evil",
    "a\x00b",
    "a\nb",
    "\x1b]0;evil\x07",
    "\u202egnp.exe",
    "x" * 5000,
    "",
)
STRANGE: tuple[Any, ...] = (None, "12", -1, 1.5, 10**30, True, [], {}, "x" * 100_000, [[]], "NaN", 1e308)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """`count` different attacks, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    seen: set[str] = set()
    for number in range(count):
        name, run = _CASES[number % len(_CASES)](rng)
        unique = name if name not in seen else f"{name} ({number})"
        seen.add(unique)
        yield Attack(kind=KIND, name=unique, run=run)


@cache
def _import_libraries() -> None:
    """Once and before anything is timed: the first import of diffusers takes longer than any answer may."""
    backend = get_backend("diffusers")
    if not backend.hosted:
        backend.prepare()


def _meet(
    folder: Path,
    faults: Callable[[LocalHub, LocalHub], list[Fault]] = lambda _hub, _other: [],
    *,
    change: Callable[[Path], None] = lambda _repo: None,
    weigh: bool = False,
    must_fail: bool = False,
) -> None:
    """Pull from a hub with some faults, and hold what must be true whatever it does."""
    _import_libraries()
    repo = folder / "served" / "repo"
    shutil.copytree(TINY_FOLDER / "vector", repo)
    change(repo)
    bystander = folder / "bystander" / ".bashrc"
    bystander.parent.mkdir()
    bystander.write_text("# mine\n")
    before = _outside(folder)
    with LocalHub({REPO: repo}) as hub, LocalHub({REPO: repo}) as other:
        for fault in faults(hub, other):
            hub.fail(fault)
        settings = load_settings(
            home=folder / "home", hub_cache=folder / "cache", hub_endpoint=hub.url, hub_token=TOKEN, stall_s=HASTE_S
        )
        begin = CLOCK()
        failed = _pull(settings, weigh=weigh)
        seconds = CLOCK() - begin
        leaked = TOKEN in str(other.tokens)
    assert not leaked, "another server saw the token"
    written = dict(before.items() ^ _outside(folder).items())
    assert not written, f"something was written outside the cache: {written}"
    assert seconds < LONGEST_S, f"it took {seconds:.0f} s"
    assert failed or not must_fail, "it was taken for a checkpoint"
    if failed:
        raise failed


def _pull(settings: Settings, *, weigh: bool) -> DiffusionGPTError | None:
    puller, backend = Puller(settings, timeout_s=HASTE_S), get_backend("diffusers")
    expert = Expert(id="x", repo=REPO)
    try:
        plan = puller.plan(expert, backend)
        if weigh:
            plan.memory_bytes("float16")
        puller.ensure(expert, backend)
    except DiffusionGPTError as error:
        return error
    return None


def _outside(folder: Path) -> dict[str, str]:
    """What lies outside the folders that a pull may write to, with its content where that is small."""
    own = {folder / "cache", folder / "home"}
    return {
        str(path): path.read_text(errors="replace") if path.is_file() and path.stat().st_size < 10_000 else ""
        for path in (*folder.rglob("*"), *folder.parent.glob("*"))
        if not any(path == one or one in path.parents for one in own)
    }


def _json(value: Any) -> Callable[[HubHandler], None]:
    return _bytes(json.dumps(value).encode())


def _bytes(body: bytes, **headers: str) -> Callable[[HubHandler], None]:
    sent = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return lambda handler: handler.reply(
        200, {**sent, **{key.replace("_", "-"): v for key, v in headers.items()}}, body
    )


def _listing(hub: LocalHub) -> dict[str, Any]:
    """What an honest hub says about the repository."""
    repo = hub.repo(REPO)
    assert repo is not None
    siblings = [file.as_sibling(blobs=True) for file in repo.files().values()]
    return {"id": REPO, "sha": repo.commit(), "siblings": siblings, "gated": False, "tags": [], "cardData": {}}


def _tree(hub: LocalHub) -> list[dict[str, Any]]:
    repo = hub.repo(REPO)
    assert repo is not None
    return [file.as_tree_entry() for file in repo.files().values()]


def _mutated(value: Any, rng: random.Random) -> tuple[Any, str]:
    """A JSON value with one part, anywhere, replaced by something strange."""
    copy = json.loads(json.dumps(value))
    place, at = copy, ""
    while isinstance(place, dict | list) and place:
        key: Any = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        at += f".{key}"
        inner = place[key]  # type: ignore[index]  # a key of a dict or an index of a list
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            strange = rng.choice([*STRANGE, *EVIL_NAMES])
            place[key] = strange  # type: ignore[index]  # as above
            return copy, f"{at} = {str(strange)[:20]!r}"
        place = inner
    return rng.choice(STRANGE), "whole"


def _strange_listing(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    seed = rng.random()
    where = rng.choice(["/api/models/t/x", "/api/models/t/x/tree"])

    def faults(hub: LocalHub, _other: LocalHub) -> list[Fault]:
        honest = _tree(hub) if where.endswith("tree") else _listing(hub)
        value, _ = _mutated(honest, random.Random(seed))  # noqa: S311  # not a secret
        return [Fault(match=where, answer=_json(value))]

    return f"listing {where} with a strange value, {seed:.6f}", lambda folder: _meet(folder, faults)


def _evil_file_name(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    name, replaces = rng.choice(EVIL_NAMES), rng.randrange(8)
    in_tree = rng.random() < 0.5

    def faults(hub: LocalHub, _other: LocalHub) -> list[Fault]:
        if in_tree:
            tree = _tree(hub)
            tree[replaces % len(tree)]["path"] = name
            return [Fault(match="/tree/", answer=_json(tree))]
        listing = _listing(hub)
        listing["siblings"][replaces % len(listing["siblings"])]["rfilename"] = name
        return [Fault(match="/api/models/", answer=_json(listing))]

    return f"file {replaces} named {name[:20]!r}, tree={in_tree}", lambda folder: _meet(folder, faults, must_fail=True)


def _not_json(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    deep, wide = rng.randrange(1000, 60_000), rng.randrange(100_000, 400_000)
    name, body = rng.choice(
        [
            (f"deep {deep}", b"[" * deep + b"]" * deep),
            (f"deep objects {deep}", b'{"a":' * deep + b"1" + b"}" * deep),
            (f"many lists {wide}", b"[" + b"[]," * wide + b"1]"),
            (f"many numbers {wide}", b"[" + b"1," * 5 * wide + b"1]"),
            (f"digits {wide}", b'{"sha": ' + b"9" * wide + b"}"),
            ("half", b'{"sha": "abc'),
            ("html", b"<html>Sign in</html>"),
            ("no bytes", b""),
            ("not utf-8", b'{"sha": "\xff\xfe"}'),
            (f"noise {wide}", rng.randbytes(1000)),
        ]
    )
    where = rng.choice(["/api/models/", "/tree/", "model_index.json", "unet/config.json"])
    must_fail = "config" not in where
    return f"{where}: {name}", lambda folder: _meet(
        folder, lambda _h, _o: [Fault(match=where, answer=_bytes(body))], must_fail=must_fail
    )


def _too_much(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    where = rng.choice(["/api/models/", "/tree/", "model_index.json", f"/{UNET}"])
    how = rng.choice(["endless", "gzip bomb", "gzip twice", "files", "chunked", "announced"])
    piece = b" " * 65_536
    bomb = gzip.compress(bytes(rng.randrange(100, 300) * 1_000_000))

    def answer(handler: HubHandler) -> None:
        match how:
            case "endless":
                handler.reply(200, {"Content-Type": "application/json"}, repeat(piece))
            case "announced":
                handler.reply(200, {"Content-Length": str(1 << 40)}, repeat(piece))
            case "gzip bomb":
                handler.reply(200, {"Content-Encoding": "gzip", "Content-Length": str(len(bomb))}, bomb)
            case "gzip twice":
                twice = gzip.compress(bomb)
                handler.reply(200, {"Content-Encoding": "gzip, gzip", "Content-Length": str(len(twice))}, twice)
            case "chunked":
                chunks = chain([b"10000\r\n" + piece + b"\r\n"] * 3, repeat(b"10000\r\n" + piece + b"\r\n"))
                handler.reply(200, {"Transfer-Encoding": "chunked"}, chunks)
            case _:
                row = {"rfilename": "f", "path": "f", "type": "file", "size": 1, "blobId": "0" * 40}
                rows = [{**row, "rfilename": f"f{n}", "path": f"f{n}"} for n in range(100_000)]
                body = json.dumps({"sha": "0" * 40, "siblings": rows} if where == "/api/models/" else rows).encode()
                handler.reply(200, {"Content-Length": str(len(body))}, body)

    return f"{where}: {how} {len(bomb)}", lambda folder: _meet(
        folder, lambda _h, _o: [Fault(match=where, answer=answer)], must_fail=True
    )


def _too_slow(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    where = rng.choice(["/api/models/t/x", "/tree/", "unet/config.json", f"/{UNET}"])
    every_s = rng.choice([0.02, 0.1, 0.3])
    in_head = rng.random() < 0.5

    def answer(handler: HubHandler) -> None:
        handler.close_connection = True
        if in_head:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not handler.service.stopping.wait(every_s):
                handler.wfile.write(b"x")
        else:
            handler.reply(200, {"Content-Length": "1000000"}, repeat(b" "), every_s=every_s)

    return f"{where}: a byte each {every_s} s, head={in_head}", lambda folder: _meet(
        folder, lambda _h, _o: [Fault(match=where, answer=answer)], must_fail=True
    )


def _strange_head(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    evil = rng.choice([name for name in EVIL_NAMES if name.isprintable() and name] + ["0" * 40, "0" * 64, "é", "a b"])
    header = rng.choice(["ETag", "X-Linked-ETag", "X-Repo-Commit"])
    quoted = rng.choice([evil, f'"{evil}"', f'W/"{evil}"'])
    name = rng.choice([UNET, "model_index.json", "vae/config.json"])

    def faults(hub: LocalHub, _other: LocalHub) -> list[Fault]:
        commit = hub.commit(REPO)

        def answer(handler: HubHandler) -> None:
            headers = {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": commit, "Content-Length": "4", header: quoted}
            safe = {key: value.encode("latin-1", "replace").decode("latin-1") for key, value in headers.items()}
            handler.reply(200, safe, b"evil")

        return [Fault(match=f"/resolve/{commit}/{name}", answer=answer)]

    return f"{name}: {header} {quoted[:30]!r}", lambda folder: _meet(folder, faults, must_fail=True)


def _elsewhere(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    where = rng.choice(["/api/models/", "/tree/", "model_index.json", f"/{UNET}"])
    how = rng.choice(["other", "user info", "same name", "backslash", "scheme", "no address", "circle", "link", "xet"])

    def faults(hub: LocalHub, other: LocalHub) -> list[Fault]:
        mine, theirs = hub.url.removeprefix("http://"), other.url.removeprefix("http://")

        def answer(handler: HubHandler) -> None:
            target = {
                "other": f"{other.url}{handler.path}",
                "user info": f"http://{mine}@{theirs}{handler.path}",
                "same name": f"http://localhost:{theirs.rpartition(':')[2]}{handler.path}",
                "backslash": f"http://{theirs}\\@{mine}{handler.path}",
                "scheme": "file:///etc/passwd",
                "no address": "http://[::1",
                "circle": handler.path,
            }.get(how)
            if target:
                handler.reply(307, {"Location": target, "Content-Length": "0"})
            elif how == "link":
                body = json.dumps(_tree(hub) if where == "/tree/" else _listing(hub)).encode()
                link = f'<{other.url}/api/models/{REPO}/tree/x?cursor=1>; rel="next"'
                handler.reply(200, {"Link": link, "Content-Length": str(len(body))}, body)
            else:
                route = f'<{other.url}/api/xet>; rel="xet-auth"'
                headers = {"X-Xet-Hash": "0" * 64, "Link": route, "ETag": f'"{"a" * 64}"', "Content-Length": "4"}
                handler.reply(200, {**headers, "X-Repo-Commit": hub.commit(REPO)}, b"evil")

        return [Fault(match=where, answer=answer)]

    return f"{where}: leads away by {how}, {rng.randrange(1000)}", lambda folder: _meet(folder, faults)


def _refusals(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    status = rng.choice([400, 401, 402, 403, 404, 409, 410, 418, 421, 451])
    said = rng.choice(["\x1b[31mred", "Invalid credentials in Authorization header", "x" * 3000, "", "é"])
    body = rng.choice([b"", b"[" * 50_000, json.dumps({"error": said}).encode(), json.dumps({"error": [1]}).encode()])
    code = rng.choice(["", "RepoNotFound", "GatedRepo", "RevisionNotFound", "EntryNotFound", "Nonsense"])
    where = rng.choice(["/api/models/", "/tree/", "model_index.json"])

    def answer(handler: HubHandler) -> None:
        text = said.encode("latin-1", "replace").decode("latin-1").replace("\x1b", " ")
        headers = {"X-Error-Code": code, "X-Error-Message": text, "X-HF-Warning": "evil; \x07", "Retry-After": "99999"}
        handler.reply(status, {**headers, "Content-Length": str(len(body))}, body)

    return f"{where}: {status} {code} {said[:12]!r} {body[:12]!r}", lambda folder: _meet(
        folder, lambda _h, _o: [Fault(match=where, answer=answer)], must_fail=True
    )


def _other_bytes(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    name = rng.choice([UNET, "vae/config.json", "tokenizer/tokenizer.json", "model_index.json"])
    kind = rng.choice(["flip", "longer", "shorter", "empty", "gzip"])
    at = rng.random()

    def faults(hub: LocalHub, _other: LocalHub) -> list[Fault]:
        repo = hub.repo(REPO)
        assert repo is not None
        file = repo.files()[name]
        data = bytearray(file.path.read_bytes())
        match kind:
            case "flip":
                data[int(at * (len(data) - 1))] ^= 1
            case "longer":
                data += b" " * 100
            case "shorter":
                del data[-10:]
            case "empty":
                data.clear()
        body = gzip.compress(bytes(data[:-1]) + b"!") if kind == "gzip" else bytes(data)
        known = {"ETag": f'"{file.etag}"', "X-Repo-Commit": hub.commit(REPO), "Content-Length": str(len(body))}
        packed = {"Content-Encoding": "gzip"} if kind == "gzip" else {}
        return [Fault(match=f"/{name}", answer=lambda handler: handler.reply(200, {**known, **packed}, body))]

    return f"{name}: other bytes, {kind} at {at:.3f}", lambda folder: _meet(folder, faults, must_fail=True)


def _code(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    key, value = rng.choice(
        [
            ("auto_map", {"AutoModel": "evil.Model"}),
            ("auto_map", {"AutoTokenizer": ["evil.Tokenizer", None]}),
            ("custom_pipelines", {"evil": {"impl": "evil.py"}}),
            ("custom_pipeline", "evil/pipeline"),
            ("trust_remote_code", True),
            ("attn_implementation", "evil/kernel"),
            ("_attn_implementation", "evil/kernel@v1:run"),
            ("_attn_implementation_internal", "paged|evil/kernel"),
            ("experts_implementation", "sonicmoe"),
            ("attn_implementation", {"": "sdpa", "text_config": "evil/kernel"}),
            ("kernel_config", {"kernel_mapping": {"RMSNorm": "evil/kernel:RMSNorm"}}),
            ("use_kernels", True),
            ("attention_backend", "evil/attention"),
            ("quantization_config", {"quant_method": "mxfp4"}),
            ("quantization_config", {"quant_method": "evil"}),
            ("quantization_config", "evil"),
            ("base_model_name_or_path", "evil/base"),
        ]
    )
    name = rng.choice(
        ["unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json", "vae/config.json"]
    )
    depth, listed = rng.randrange(4), rng.random() < 0.3
    spelt = rng.choice([key, f"_{key}", key.upper()]) if key != "quantization_config" else key

    def change(repo: Path) -> None:
        config = json.loads((repo / name).read_text())
        inner: Any = {spelt: value}
        for level in range(depth):
            inner = {f"sub_config_{level}": [inner] if listed else inner}
        (repo / name).write_text(json.dumps({**config, **inner}))

    title = f"{name}: {spelt}={str(value)[:30]}, depth {depth}, listed={listed}"
    return title, lambda folder: _meet(folder, change=change, must_fail=True)


def _built_without_end(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Configurations by which a library would build modules or tables without end, before it looks at weights."""
    number = rng.choice((10**5, 10**9, 10**40, 1e300))
    name, key = rng.choice(
        (
            ("unet/config.json", "layers_per_block"),
            ("unet/config.json", "num_layers"),
            ("unet/config.json", "transformer_layers_per_block"),
            ("unet/config.json", "sample_size"),
            ("vae/config.json", "num_decoder_blocks"),
            ("text_encoder/config.json", "num_hidden_layers"),
            ("scheduler/scheduler_config.json", "num_train_timesteps"),
        )
    )
    most = 10**7 if key == "num_train_timesteps" else 0
    value: Any = rng.choice((max(number, most), [1, max(number, most)], [[1] * 5_000] * (1 if not most else 1_000)))

    def change(repo: Path) -> None:
        path = repo / name
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return f"{name}: {key} {str(value)[:20]}, {rng.random():.6f}", lambda folder: _meet(
        folder, change=change, must_fail=True
    )


def _strange_index(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    seed = rng.random()
    component = rng.choice(
        [
            ("unet", ["evil", "Model"]),
            ("unet", ["diffusers", "DiffusionPipeline"]),
            ("unet", ["diffusers", "__class__"]),
            ("unet", ["os", "system"]),
            ("unet", ["transformers", "pipeline.evil"]),
            ("../../bystander", ["diffusers", "AutoencoderKL"]),
            ("_class_name", ["pipeline", "Evil"]),
            ("_class_name", "EvilPipeline"),
            ("_class_name", "StableDiffusionInpaintPipeline"),
            ("_class_name", "WanPipeline"),
            ("_class_name", None),
            ("many", None),
            ("adapter", None),
        ]
    )

    def change(repo: Path) -> None:
        path = repo / "model_index.json"
        index = json.loads(path.read_text())
        name, value = component
        if name == "many":
            index |= {f"part{number}": ["diffusers", "AutoencoderKL"] for number in range(5000)}
        elif name == "adapter":
            (repo / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
        else:
            index[name] = value
        path.write_text(json.dumps(index))

    return f"index: {component[0]}={component[1]}, {seed:.4f}", lambda folder: _meet(
        folder, change=change, must_fail=True
    )


def _strange_header(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    deep = rng.randrange(1000, 60_000)
    size = rng.choice([0, 7, 100, 10_000_000, 1 << 40])
    header = rng.choice(
        [
            b"[" * deep,
            b"{}",
            b'{"a": null}',
            b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
            b'{"a": {"dtype": 1, "shape": "1", "data_offsets": {}}}',
            b'{"a": {"dtype": "F32", "shape": [1e400], "data_offsets": [0, 4]}}',
        ]
    )
    no_ranges = rng.random() < 0.5

    def change(repo: Path) -> None:
        length = size if size > 100 else len(header)
        (repo / UNET).write_bytes(length.to_bytes(8, "little") + header + bytes(rng.randrange(1, 1000)))

    def faults(hub: LocalHub, _other: LocalHub) -> list[Fault]:
        if not no_ranges:
            return []
        repo = hub.repo(REPO)
        assert repo is not None
        file = repo.files()[UNET]
        known = {"ETag": f'"{file.etag}"', "X-Repo-Commit": hub.commit(REPO), "Content-Length": "1200000000"}
        body = (10_000).to_bytes(8, "little") + header
        whole = lambda handler: handler.reply(200, known, chain([body], repeat(bytes(65_536))))  # noqa: E731
        return [Fault(match=f"/{UNET}", answer=whole)]

    return f"header {header[:30]!r} of {size}, ranges={not no_ranges}, {deep}", lambda folder: _meet(
        folder, faults, change=change, weigh=True, must_fail=True
    )


_CASES: tuple[Case, ...] = (
    _strange_listing,
    _evil_file_name,
    _not_json,
    _too_much,
    _strange_head,
    _elsewhere,
    _code,
    _refusals,
    _other_bytes,
    _strange_index,
    _built_without_end,
    _strange_header,
    _too_slow,
)
