"""How good a vocoder is: copy synthesis of sounds, figures of merit, and a report."""
