"""`diffusiongpt doctor`: what this installation has, where its files are, and what can draw here; no network."""

from __future__ import annotations

import os
import platform
from contextlib import closing
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from diffusiongpt.apps.cli.common import DeviceOption, JsonOption, ZooOption, load_zoo
from diffusiongpt.apps.cli.printing import print_json, show

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Zoo

PACKAGES = ("diffusiongpt", "torch", "diffusers", "transformers", "huggingface_hub", "peft")
EXTRAS = ("langchain-openai", "openai", "psycopg")
"""What the optional dependencies install, under the names of their packages."""

KEYS = ("hub_token", "openai_api_key")
MORE_KEYS = ("ideogram_api_key", "stability_api_key", "server_keys")
"""Keys of services that few people use, which are named only where they are set."""

_WIDTH, _INDENT = 78, 11


def doctor(zoo: ZooOption = None, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Check this installation: device, memory, what fits, where files are, keys, versions."""
    report = examine(zoo, device)
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report["problems"]:
        raise typer.Exit(1)


def examine(sources: list[str] | None, device: str | None) -> dict[str, Any]:
    """All that is known of this installation; what is wrong with it is among `problems`, and no key is shown."""
    from diffusiongpt.errors import DiffusionGPTError
    from diffusiongpt.settings import load_settings, misspelt_variables

    report: dict[str, Any] = {"versions": _versions(), "problems": []}
    for name, nearest in misspelt_variables().items():
        meant = f"; did you mean {nearest}?" if nearest else ""
        report["problems"].append(f"the variable {name} is not a setting{meant}")
    try:
        settings = load_settings()
    except DiffusionGPTError as error:
        report["problems"].append(_said(error))
        return report
    report |= {"keys": _keys(settings), "places": _places(settings), "settings": _settings(settings)}
    report["problems"] += _unwritable(settings)
    for examine_part in (_machine, _experts, _queue):
        try:
            report |= examine_part(settings, sources, device)
        except DiffusionGPTError as error:
            report["problems"].append(_said(error))
    return report


def _said(error: DiffusionGPTError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = {package: of(package) for package in (*PACKAGES, *EXTRAS)}
    return {"python": platform.python_version(), "system": platform.platform(terse=True), **packages}


def _keys(settings: Settings) -> dict[str, str | None]:
    """Key -> the variable that it was found in; `None` if it is not set. The keys themselves are shown nowhere."""
    from diffusiongpt.settings import variables

    set_here = {name.upper() for name, value in os.environ.items() if value}
    found: dict[str, str | None] = {}
    for key in (*KEYS, *MORE_KEYS):
        names = variables()[key]
        at = next((name for name in names if name in set_here), None)
        found[names[-1]] = at if getattr(settings, key) is not None else None
    return {name: at for name, at in found.items() if at or name in {variables()[key][-1] for key in KEYS}}


def _places(settings: Settings) -> dict[str, Any]:
    from diffusiongpt.hub import Puller

    votes = settings.votes_place
    if isinstance(votes, str) and "://" in votes:
        address = urlsplit(votes)  # without its user, password and query
        votes = f"{address.scheme}://{address.hostname or ''}{address.path}"
    return {
        "home": str(settings.home),
        "votes": str(votes),
        "own_zoo": str(settings.own_zoo) if settings.own_zoo.is_file() else None,
        "checkpoints": str(settings.hub_cache),
        "bytes_free": Puller(settings).disk_free(),
    }


def _settings(settings: Settings) -> dict[str, Any]:
    names = ("zoo_layers", "llm", "hub_endpoint", "offline", "max_download_gb", "memory")
    values = {name: getattr(settings, name) for name in names}
    return {name: str(value) if name == "memory" and value is not None else value for name, value in values.items()}


def _unwritable(settings: Settings) -> list[str]:
    """What cannot be kept here; nothing is written to find out."""

    def parent(path: Path) -> Path:
        return next(one for one in (path, *path.parents) if one.exists())

    folders = {"votes and settings": settings.home, "checkpoints": settings.hub_cache}
    return [
        f"{what} cannot be kept in {folder}: {parent(folder)} is not a folder that you may write to"
        for what, folder in folders.items()
        if not parent(folder).is_dir() or not os.access(parent(folder), os.W_OK)
    ]


def _machine(settings: Settings, sources: list[str] | None, device: str | None) -> dict[str, Any]:
    from diffusiongpt.weights import HOST, best_device, device_facts, device_memory

    del sources
    name = best_device(device or settings.device)
    title, bfloat16 = device_facts(name)
    memory = None if name == HOST else device_memory(name)
    facts = {"name": name, "title": title, "bytes": memory, "bfloat16": bfloat16}
    return {"device": facts, "host_bytes": device_memory(HOST)}


def _experts(settings: Settings, sources: list[str] | None, device: str | None) -> dict[str, Any]:
    from diffusiongpt.backends import is_hosted
    from diffusiongpt.cache import ModelCache
    from diffusiongpt.drawing import Machine
    from diffusiongpt.hub import Puller

    zoo: Zoo = load_zoo(sources)
    cache = ModelCache(settings, puller=Puller(settings))
    try:
        machine = Machine(cache, settings, device or settings.device)
        planner = machine.planner()
        plans = {one.id: planner(one) for one in zoo.values() if not is_hosted(one.backend)}
        on_disk = [name for name in plans if machine.readiness(zoo[name]) != "download"]
    finally:
        cache.close()
    ways: dict[str, list[str]] = {}
    for name, plan in plans.items():
        if plan.best is not None:
            ways.setdefault(plan.best.kind, []).append(name)
    left_out = {name: plan.reason for name, plan in plans.items() if plan.best is None}
    missing = {name: reason for name in left_out if (reason := machine.missing(zoo[name]))}
    unsized = [name for name in left_out if not plans[name].sized]
    too_big = {name: reason for name, reason in left_out.items() if name not in missing and name not in unsized}
    hosted = [one.id for one in zoo.values() if is_hosted(one.backend)]
    found = {"fits": ways, "too_big": too_big, "missing": missing, "unsized": unsized}
    return {"zoo": list(zoo.sources), "experts": {**found, "on_disk": on_disk, "hosted": hosted}}


def _queue(settings: Settings, sources: list[str] | None, device: str | None) -> dict[str, Any]:
    """What waits for the database of the votes; `None` where they are in a file. The database is not asked."""
    from diffusiongpt.votes import VoteStore

    del sources, device
    with closing(VoteStore.own(settings)) as store:
        queue = store.queue()
    return {"votes_queue": None if queue is None else asdict(queue)}


_WAYS = {
    "whole": "whole on the device",
    "offload": "one part at a time on the device",
    "stream": "a few layers at a time on the device",
    "quantised": "with weights of fewer bits",
    "cpu": "on the processor",
}


def _show(report: dict[str, Any]) -> None:
    """One paragraph for each subject, at most 80 columns."""
    from diffusiongpt.flow import as_sold
    from diffusiongpt.hub import readable

    versions = report["versions"]
    installed = {name: versions[name] for name in (*PACKAGES, *EXTRAS) if versions[name]}
    _paragraph("versions", ", ".join(f"{name} {one}" for name, one in installed.items()))
    _paragraph("", f"python {versions['python']} on {versions['system']}")
    missing = [name for name in PACKAGES if versions[name] is None]
    if missing:
        _paragraph("", f"not installed: {', '.join(missing)}")
    if "device" in report:
        device, host = report["device"], report["host_bytes"]
        memory = f" with {as_sold(device['bytes'])}" if device["bytes"] else ""
        titled = f"{device['name']} ({device['title']})" if device["title"] else device["name"]
        planned = report["settings"]["memory"]
        routes = f"; routes are planned for {planned}" if planned else ""
        _paragraph("device", f"{titled}{memory}; host memory {as_sold(host) if host else 'unknown'}{routes}")
    if "experts" in report:
        _show_experts(report["experts"])
    if "places" in report:
        places, settings = report["places"], report["settings"]
        _paragraph("zoo", " + ".join(report.get("zoo") or settings["zoo_layers"]))
        _paragraph("home", places["home"])
        _paragraph("votes", places["votes"])
        _show_queue(report.get("votes_queue"))
        _paragraph("pulls", f"{places['checkpoints']}, {readable(places['bytes_free'])} free")
        asks = "offline" if settings["offline"] else f"above {settings['max_download_gb']:g} GB they are asked about"
        _paragraph("", f"from {settings['hub_endpoint']}; {asks}")
        _paragraph("keys", ", ".join(f"{key} {'found' if at else 'not set'}" for key, at in report["keys"].items()))
        _paragraph("llm", settings["llm"] or "none: the local thinker reads prompts")
    if report["problems"]:
        show()
    for problem in report["problems"]:
        _paragraph("problem", problem)


def _show_queue(queue: dict[str, Any] | None) -> None:
    if queue is None:
        return
    if queue["waiting"]:
        _paragraph("", f"{queue['waiting']:,} wait in {queue['path']} until it can be reached, since {queue['oldest']}")
    if queue["refused"]:
        _paragraph("", f"{queue['refused']:,} that waited were refused, and are in {queue['path']}: {queue['refusal']}")


def _show_experts(experts: dict[str, Any]) -> None:
    able = sum(len(names) for names in experts["fits"].values())
    unable = sum(len(experts[why]) for why in ("too_big", "missing", "unsized"))
    _paragraph("experts", f"{able} of {able + unable} can draw here, {len(experts['hosted'])} hosted")
    for way, names in experts["fits"].items():
        _paragraph("", f"{len(names)} {_WAYS.get(way, way)}: {', '.join(names)}")
    if experts["too_big"]:
        _paragraph("", f"{len(experts['too_big'])} need more memory: {', '.join(experts['too_big'])}")
    if experts["unsized"]:
        names = ", ".join(experts["unsized"])
        _paragraph("", f"{len(experts['unsized'])} of unknown size, which only --expert chooses: {names}")
    for name, reason in experts["missing"].items():
        _paragraph("", f"{name}: {reason}")
    _paragraph("on disk", ", ".join(experts["on_disk"]) or "none yet; the first drawing pulls what it needs")


def _paragraph(label: str, text: str) -> None:
    lines = wrap(text, _WIDTH - _INDENT, break_on_hyphens=False) or [""]
    for line in (f"{label:<{_INDENT}}{lines[0]}", *(" " * _INDENT + line for line in lines[1:])):
        show(line)
