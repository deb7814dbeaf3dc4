"""What the demonstration lays out is what its processes read."""

from pathlib import Path

from deploy.demo.processes import DemoPlan, write_files
from deploy.demo.smart_home import make_smart_home_data
from edge_runtime.data.store import Counts, DataStore
from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings
from fedpt.examples import read_examples
from fedpt.settings import load


def test_each_home_has_its_examples_in_a_store_of_its_own_and_none_is_flagged(
    tmp_path: Path,
) -> None:
    data = make_smart_home_data(devices=3, examples_per_device=20, evaluation=6)
    plan = DemoPlan(tmp_path / "out", Path("s.gguf"), Path("l.gguf"), data, rounds=1)
    for _ in range(2):  # a second run begins anew
        write_files(plan, port=1883)
    for device, examples in data.private.items():
        config = plan.device_config(device)
        settings = load(DeviceSettings, toml=config, prefix=ENVIRONMENT_PREFIX, environment={})
        assert settings.data is not None
        store = DataStore(settings.data)
        assert list(store.usable().values()) == list(examples)
        assert store.counts() == Counts(usable=len(examples))
    assert read_examples(plan.folder / "evaluation.jsonl") == list(data.evaluation)
