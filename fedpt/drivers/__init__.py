"""The outside world that both sides touch: an MQTT broker, llama.cpp, child processes.

Nothing else in `fedpt` imports it, so `fedpt` itself needs neither.
"""
