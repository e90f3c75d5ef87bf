"""The processes that share a run: one, or as many as accelerate or torchrun have started."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """What differs between one process and many, and between whole and sharded parameters.

    Parameters
    ----------
    accelerator : accelerate.Accelerator, optional
        Of a run in many processes, in the way of its own configuration (DDP, FSDP). None: this
        process is alone.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.number = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.main = self.rank == 0  # the one that writes, shows and reports
        self.sharded = accelerator is not None and "FSDP" in str(accelerator.distributed_type)

    @classmethod
    def launched(cls) -> Processes:
        """Those that a launcher has started with this one; alone unless it says otherwise."""
        many = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if not (many or "ACCELERATE_MIXED_PRECISION" in os.environ):
            return cls()
        from accelerate import Accelerator

        return cls(Accelerator(cpu=not torch.cuda.is_available()))

    # --- what a command asks ---------------------------------------------------------------------

    def place(self, model: nn.Module) -> None:
        """Move a model to this process's device."""
        if self.sharded:
            return  # a whole model may not fit: the parts are placed in training
        if self.accelerator is not None:
            model.to(self.accelerator.device)
        elif torch.cuda.is_available():
            model.to("cuda")

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def say(self, text: str) -> None:
        """Print, once."""
        if self.main:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def quiet_others(self) -> Iterator[None]:
        """Only the main process reports an error that all of them meet."""
        try:
            yield
        except ValueError:
            if not self.main:
                raise SystemExit(2) from None
            raise

    # --- what training asks ----------------------------------------------------------------------

    def prepare(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Module and optimizer as this kind of run needs them."""
        if self.accelerator is None:
            return module, optimizer
        return self.accelerator.prepare(module, optimizer)

    def gather(self, own: list[Any]) -> list[Any]:
        """What all processes have, in their order."""
        if self.number == 1:
            return own
        from accelerate.utils import gather_object

        return gather_object(own)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of this process's share of a loss to those that are there."""
        if self.accelerator is None:
            loss.backward()
        else:  # gradients are averaged over the processes, but the shares add up
            self.accelerator.backward(loss * self.number)

    def exchange(self, module: nn.Module, now: bool) -> contextlib.AbstractContextManager:
        """Let a backward pass exchange its gradients now, or leave that to a later one."""
        if self.number == 1 or now:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(module)

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients down to ``max_norm``; their norm before."""
        if self.accelerator is None:
            return nn.utils.clip_grad_norm_(parameters, max_norm)
        if hasattr(parameters[0], "full_tensor"):  # FSDP 2: torch sees the shards of all
            return nn.utils.clip_grad_norm_(parameters, max_norm).full_tensor()
        return self.accelerator.clip_grad_norm_(parameters, max_norm)

    @contextlib.contextmanager
    def whole(self, module: nn.Module) -> Iterator[None]:
        """Let the policy within ``module`` be called by itself, though it be sharded."""
        if not self.sharded:
            yield
        elif hasattr(module, "unshard"):  # FSDP 2
            module.unshard()
            yield
            module.reshard()
        else:
            from torch.distributed.fsdp import FullyShardedDataParallel

            with FullyShardedDataParallel.summon_full_params(module, writeback=False):
                yield

    # --- what a checkpoint asks ------------------------------------------------------------------

    def state(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        trained: Mapping[str, nn.Parameter],
        started: bool,
    ) -> dict[str, Any]:
        """Trained parameters and the optimizer's state, in whole; all processes must ask.

        Parameters
        ----------
        module, optimizer
            From `prepare`.
        trained : mapping
            The parameters in training, by name.
        started : bool
            Whether the optimizer has made a step, so that it has a state.

        Returns
        -------
        dict
            ``policy`` and ``optimizer``; detached, not copied.
        """
        if not self.sharded:
            policy = {name: parameter.detach() for name, parameter in trained.items()}
            return {"policy": policy, "optimizer": optimizer.state_dict()}
        from torch.distributed.checkpoint import state_dict as whole

        options = whole.StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
        )
        state = {"policy": whole.get_model_state_dict(module, options=options), "optimizer": None}
        if started:  # asked before, torch would make up a state, one step old
            state["optimizer"] = whole.get_optimizer_state_dict(
                module, optimizer.optimizer, options=options
            )
        return state

    def restore(
        self,
        state: Mapping[str, Any],
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        trained: Mapping[str, nn.Parameter],
    ) -> None:
        """Set what `state` gave."""
        if not self.sharded:
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(state["policy"][name])
            optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint import state_dict as whole

        options = whole.StateDictOptions(full_state_dict=True, strict=False)
        whole.set_model_state_dict(module, state["policy"], options=options)
        if state["optimizer"] is not None:
            whole.set_optimizer_state_dict(
                module, optimizer.optimizer, state["optimizer"], options=options
            )
