"""The tables of `hulu data stats`, from the numbers that `--json` prints."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from hulu_jax.data.counts import KINDS
from hulu_jax.data.schema import MODALITIES

_WIDTH = 140


def show(answer: Mapping[str, Any]) -> None:
  """Prints them."""
  console = Console(width=_WIDTH)
  console.print(_datasets(answer))
  if any(row["kept"] for row in answer["datasets"]):
    console.print(_kept(answer))
  console.print(_shapes(answer))
  for line in _lines(answer):
    console.print(line)


def _datasets(answer: Mapping[str, Any]) -> Table:
  columns = ["records", "samples", "bad", *(f"{m} tokens" for m in MODALITIES)]
  columns += ["patches", "supervised", "steps an epoch", "ms a record"]
  table = Table("dataset", title=f"{answer['steps']} steps, by dataset")
  for name in columns:
    table.add_column(name, justify="right")
  for row in answer["datasets"]:
    epoch = row["steps_per_epoch"]
    numbers = [row["tokens"][m] for m in MODALITIES] + [row["patches"], row["supervised"]]
    table.add_row(
      row["dataset"],
      f"{row['records']:,}",
      f"{row['samples']:,}",
      f"{sum(row['bad'].values()):,}",
      *(f"{n:,}" for n in numbers),
      "never" if epoch is None else f"{epoch:,.1f}",
      f"{1000 * row['build_seconds'] / row['samples']:.2f}" if row["samples"] else "-",
    )
  return table


def _kept(answer: Mapping[str, Any]) -> Table:
  modes = sorted({m for row in answer["datasets"] for k in row["kept"].values() for m in k})
  title = f"visual tokens kept, by compression mode (the experiment's is {answer['compression']})"
  table = Table("dataset", "modality", title=title)
  for mode in ["before", *modes]:
    table.add_column(mode, justify="right")
  for row in answer["datasets"]:
    for kind in KINDS:
      if kind in row["kept"]:
        before = row["visual_tokens_before_compression"][kind]
        kept = (f"{row['kept'][kind][mode]:.3f}" for mode in modes)
        table.add_row(row["dataset"], kind, f"{before:,}", *kept)
  return table


def _shapes(answer: Mapping[str, Any]) -> Table:
  names = ("tokens", "supervised", "patches", "visual")
  table = Table("shape", title="steps, by shape: part that is used")
  for name in ("steps", *names, "useful / paid", "FLOPs a step", "FLOPs a rank"):
    table.add_column(name, justify="right")
  for number, row in enumerate(answer["shapes"]):
    fill = [f"{row['fill'][n]:.3f}" for n in names] if row["steps"] else ["-"] * len(names)
    useful = f"{row['useful_over_paid']:.3f}" if row["steps"] else "-"
    flops = (f"{row[key]:.3g}" for key in ("flops", "flops_per_rank"))
    table.add_row(str(number), str(row["steps"]), *fill, useful, *flops)
  return table


def _lines(answer: Mapping[str, Any]) -> list[str]:
  lines = [
    f"useful over paid, all steps: {answer['useful_over_paid']:.3f} of the FLOPs; the rest is "
    "padding",
    f"FLOPs: linear layers of {answer['model']}, forward (training about three times as many); "
    f"{answer['ranks']} data-parallel ranks",
    f"loading, measured on this machine ({answer['cores']} cores, {answer['threads']} threads): "
    f"{answer['seconds_per_step']:.3f} s a step, of it {answer['of_it_counting']:.3f} s to count",
  ]
  for row in answer["datasets"]:
    if row["bad"]:
      kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(row["bad"].items()))
      lines.append(f"bad records of {row['dataset']}: {kinds}")
  if answer["steps_until_the_end"] is not None:
    lines.append(f"the mixture ends after about {answer['steps_until_the_end']:,.1f} steps")
  if answer["rows_packed"] < answer["rows"]:
    lines.append(
      f"packed {answer['rows_packed']} of {answer['rows']} rows, to spare memory; FLOPs, epochs "
      "and seconds are for all"
    )
  return lines + [f"picture: {path}" for path in answer.get("pictures", ())]
