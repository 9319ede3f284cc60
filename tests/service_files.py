"""What TensorBoard and W&B find in their own files, for tests to compare with what was logged."""

import json
import struct

import orjson
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record


def tensorboard_scalars(log_dir):
    """Tag → [(time, step, value)], as TensorBoard itself reads a directory."""
    accumulator = EventAccumulator(str(log_dir), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(point.wall_time, point.step, point.value) for point in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def wandb_files(directory):
    """The transaction logs below a directory, oldest first: their directories are named so."""
    return sorted(directory.rglob("*.wandb"), key=lambda file: file.parent.name)


def wandb_records(file):
    """All records of a transaction log: LevelDB's framing around protocol buffers."""
    data = file.read_bytes()
    position, record, records = 7, b"", []
    while position + 7 <= len(data):
        if (left := 32_768 - position % 32_768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += 7
        if position + length > len(data):
            break  # being written
        record += data[position : position + length]
        position += length
        if kind in (1, 4):
            records.append(Record.FromString(record))
            record = b""
    return records


def wandb_rows(file):
    """The rows of a transaction log: name → value, names of nested ones joined with dots."""
    return [
        {".".join([*item.nested_key] or [item.key]): _value(item) for item in record.history.item}
        for record in wandb_records(file)
        if record.HasField("history")
    ]


def _value(item):
    value = json.loads(item.value_json)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def start_times(metrics_file):
    """When each logger of a metrics file opened it, in epoch seconds."""
    notes = metrics_file.with_name("metrics.writers.jsonl").read_bytes().splitlines()
    return [note["time"] for line in notes if (note := orjson.loads(line))["event"] == "open"]
