"""What a file that cannot be read becomes: a typed error that says why, never an empty image."""


class BadRecord(ValueError):
  """A file or record that cannot be used.

  Attributes:
    kind: one short word for counting: `missing`, `empty`, `format`, `limit`, `geometry`, `options`.
    reason: what was found and what was expected, without anything the file says about a patient.
  """

  def __init__(self, kind: str, reason: str):
    super().__init__(f"{kind}: {reason}")
    self.kind = kind
    self.reason = reason
