"""The longer runs whose results the chapters draw: `python -m dpo_lib.experiments.NAME`."""
