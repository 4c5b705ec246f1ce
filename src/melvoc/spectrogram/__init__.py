"""Mel spectrograms.

- `spec`: the strict description; `presets`: conventions in use; `bands`: the corners of mel bands.
- `transform`: from a waveform to its mel; `conversion`: back to spectra, and from one spec to another.
- `check`: whether a mel can belong to a spec; `file`: mels on disk.
"""
