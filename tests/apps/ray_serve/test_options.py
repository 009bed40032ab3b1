"""What a fleet may be made of, and the files of the documentation that say it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema
from ruamel.yaml import YAML

from diffusiongpt.apps.ray_serve import FleetOptions, fleet
from diffusiongpt.apps.ray_serve.deploy import _size
from diffusiongpt.apps.ray_serve.scaling import ByQueueSeconds
from diffusiongpt.errors import SettingsError

DOCS = Path(__file__).parents[3] / "docs" / "scale.md"
CONFIGS = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", CONFIGS)
def test_the_files_of_the_documentation_build(text: str) -> None:
    """As `serve deploy` reads them: Ray takes their shape, and the application is made of their arguments."""
    config = ServeDeploySchema.model_validate(YAML(typ="safe", pure=True).load(text))
    (application,) = config.applications
    assert application.import_path == "diffusiongpt.apps.ray_serve:fleet"
    assert fleet(application.args)._bound_deployment.name == "Front"


def test_the_documentation_has_an_example_of_each_sort() -> None:
    """One of replicas that are all alike, and one of several kinds."""
    assert ["kinds:" in text for text in CONFIGS] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kinds": [{"name": "a"}, {"name": "a"}]}, "two kinds have one name"),
        ({"kinds": [{"name": "a"}], "gpus": 1}, "gpus is said outside of kinds"),
        ({"kinds": [{"name": "A/B"}]}, "name"),
        ({"kinds": [{"name": "a", "zoo": "tiny"}]}, "zoo"),
        ({"memory": "large"}, "is not a memory"),
        ({"least": 3, "most": 2}, "least is more than most"),
        ({"hang_s": 0}, "hang_s"),
        ({"zoos": "tiny"}, "zoos"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(arguments: dict[str, Any], said: str) -> None:
    """With the argument, and those that there are."""
    with pytest.raises(SettingsError, match=re.escape(said)) as error:
        fleet(arguments)
    assert "replicas" in error.value.hint


def test_kinds_are_what_is_said_of_each() -> None:
    """One without a name if nothing is said, and none at all for hosted experts alone."""
    assert list(FleetOptions().drawing) == [""]
    assert list(FleetOptions.model_validate({"kinds": [{"name": "a"}, {"name": "b"}]}).drawing) == ["a", "b"]
    assert FleetOptions(replicas=0).drawing == {}
    both = {"kinds": [{"name": "a", "replicas": 0}, {"name": "b"}], "zoo": "tiny"}
    assert list(FleetOptions.model_validate(both).drawing) == ["b"]
    assert fleet(both)._bound_deployment.name == "Front"
    assert list(FleetOptions(replicas=0, most=2).drawing) == [""]


def test_fronts_and_replicas_run_where_their_resources_are() -> None:
    """Each asks Ray for its own; for none if none are said."""
    front = fleet(zoo="tiny", resources={"draws": 1}, front_resources={"fronts": 0.5})._bound_deployment
    (drawer,) = front.init_args[1].values()
    assert front.ray_actor_options["resources"] == {"fronts": 0.5}
    assert drawer._bound_deployment.ray_actor_options["resources"] == {"draws": 1}
    assert "resources" not in fleet(zoo="tiny")._bound_deployment.ray_actor_options


def test_replicas_are_as_many_as_the_seconds_of_work_take() -> None:
    """By what they report, and by what waits in front, of which the number is known alone."""
    options = FleetOptions(least=0, most=8, wait_s=30)
    scaling = _size(options, options)["autoscaling_config"]
    assert (scaling.min_replicas, scaling.max_replicas, scaling.downscale_delay_s) == (0, 8, 300)
    assert _size(FleetOptions(replicas=3), options) == {"num_replicas": 3}
    policy = ByQueueSeconds(**scaling.policy.policy_kwargs)

    def wanted(queues: list[float], each: list[float], waiting: float) -> float:
        metrics = {name: dict(enumerate(values)) for name, values in (("queue_s", queues), ("draw_s", each))}
        count, state = policy(SimpleNamespace(aggregated_metrics=metrics, total_queued_requests=waiting))  # type: ignore[arg-type]
        assert state == {}
        return count

    assert wanted([], [], 0) == wanted([0.0, 0.0], [0.0, 0.0], 0) == 0
    assert wanted([31.0, 30.0], [10.0, 12.0], 0) == 3
    assert wanted([31.0, 30.0], [10.0, 0.0], 6) == 5
    assert wanted([], [], 2) == wanted([0.0], [0.0], 0.5) == 1, "the first replica is still starting"
