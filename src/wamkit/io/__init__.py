"""Files, their formats and their locks; progress and interrupts: what every part stands on."""
