"""What every command, card and report says of the project, in the same words."""

NOTICE = (
  "Research software, not a medical device, no clinical validation, not affiliated with the "
  "Hulu-Med authors."
)
