"""What a mel is.

- `spec`: the strict description; `presets`: conventions in use; `bands`: the corners of mel bands.
- `transform`: from a waveform to its mel; `conversion`: back to spectra, and from one spec to another.
- `check`: whether a mel can be one of a spec's; `file`: mels on disk.
"""
