"""The demo: chapter 10 in one command."""

from __future__ import annotations

import argparse


def run_demo(args: argparse.Namespace) -> int:
    """Train the tiny model on the twelve preferences of chapter 10."""
    from dpo_lib import demo

    return demo.run_demo(steps=args.steps, seed=args.seed, loss=args.loss)
