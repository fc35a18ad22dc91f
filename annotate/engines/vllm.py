"""vLLM in this process: requests go in as there is room, answers come out as they finish."""

import logging
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from typing import Any

from PIL import Image

from annotate.engines.internvl import tile_args, tokens_per_tile
from annotate.engines.memory import MORE_MEMORY
from annotate.engines.records import TEMPLATE, Answer, EngineConfig, EngineFacts, Feed, Request, Task
from annotate.models import Model
from builders.errors import UserError
from builders.torch_repair import child_environment, repair

WINDOW = 1.25  # requests in flight, in multiples of max_num_seqs: some always wait inside, so that it never starves
OF_SAMPLING = ("ignore_eos", "min_tokens", "repetition_penalty", "top_k", "top_p")  # engine arguments of each request
SEEING = "choose a vision-language checkpoint that vLLM serves, such as OpenGVLab/InternVL3-8B-hf"
CPU_DEFAULTS: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 32}
# Between JSON's parts a weak model may write blanks for ever; xgrammar can forbid them.
NO_WHITESPACE = {"backend": "xgrammar", "disable_any_whitespace": True}
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # 6 s to the first token instead of 36 s, and no second copy of torch
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about speed that a CPU does not have
}
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for results
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmEngine:
    """One `vllm.LLM`, fed and stepped by hand: never a whole-list call, so memory stays flat and nothing is lost.

    `LLM.chat` on a list renders every image before the first answer and loses all of them to one exception; batches of
    16 drain the engine between batches. `LLM.enqueue_chat` and `LLMEngine.step` do neither.

    In one process, because that won: measured against this engine fed from memory, an API server with a plain client
    reached 0.61, with two front ends 0.64, and this 0.97 (2 cores, results/annotate-cpu-70m-servers.md). A thread that
    renders beside the steps was tried there too: no gain beyond the noise.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._tile_args = tile_args(config.model.architecture, config.max_dynamic_patch)
        self.llm: Any = None
        self._refusals: tuple[type[Exception], ...] = (ValueError,)  # of a request; the engine stays whole

    def start(self) -> EngineFacts:
        """Load the model; seconds on a CPU for a small one, minutes on a GPU. `UserError` if vLLM refuses it."""
        repair()
        os.environ.update(child_environment(os.environ))  # vLLM inspects models in a process of their own
        is_cpu = is_cpu_build()
        for name, value in {**ENVIRONMENT, **(CPU_ENVIRONMENT if is_cpu else {})}.items():
            os.environ.setdefault(name, value)
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")  # of torch's next release
        from vllm import LLM
        from vllm.exceptions import VLLMClientError

        self._refusals = (ValueError, VLLMClientError)
        _quieten_cpu_worker()
        config, model = self._config, self._config.model
        arguments: dict[str, Any] = {
            "model": model.location,
            "revision": model.hub_revision,
            "trust_remote_code": model.trust_remote_code,
            "dtype": config.dtype,
            "limit_mm_per_prompt": {"image": 1, "video": 0},
            "mm_processor_cache_gb": 0,  # every image is seen once
            "mm_processor_kwargs": self._tile_args,
            "disable_log_stats": True,
            **(CPU_DEFAULTS if is_cpu else {}),
            **({"max_num_seqs": config.max_in_flight} if config.max_in_flight else {}),
            **({"structured_outputs_config": NO_WHITESPACE} if config.schema else {}),
            **{name: value for name, value in config.engine_args.items() if name not in OF_SAMPLING},
        }
        try:
            self.llm = LLM(**arguments)
        except (ValueError, OSError) as error:
            raise _unloadable(model, error) from error
        vllm_config = self.llm.llm_engine.vllm_config
        self._capacity = int(vllm_config.scheduler_config.max_num_seqs)
        self._window = max(1, int(WINDOW * self._capacity))
        self._tokens_per_tile = tokens_per_tile(vllm_config.model_config.hf_config)
        self._image_token = self._find_image_token(vllm_config.model_config.hf_config)
        probe = self._probe()
        return EngineFacts(
            engine_id=f"vllm {_vllm_version()}",
            rendered_prompt=str(probe.prompt),
            dtype=str(vllm_config.model_config.dtype).removeprefix("torch."),
            versions={"vllm": _vllm_version(), "torch": version("torch"), "transformers": version("transformers")},
            capacity=self._capacity,
            window=self._window,
            tells_image_tokens=True,
        )

    def describe(self, feed: Feed) -> Iterator[Answer]:
        """Keep the window full; step; yield what finished."""
        engine = self.llm.llm_engine
        asked: dict[str, Request] = {}  # by vLLM's request id
        while asked or not feed.is_finished:
            while len(asked) < self._window:
                request = feed.take(wait=not asked)
                if request is None:
                    break
                try:
                    asked[self._add(request)] = request
                except self._refusals as error:  # this image, not the engine: too long a prompt, an impossible aspect …
                    reason = f"the engine refused it: {_last_line(error)}"
                    yield Answer(request.key, task=request.task, error=reason)
            if not asked:
                continue
            for output in engine.step():
                if output.finished:
                    yield self._answer(asked.pop(output.request_id), output)

    def processes(self) -> list[BaseProcess]:
        """vLLM's engine core, which is a process of its own on a GPU. vLLM does not notice when it is killed."""
        return [child for child in multiprocessing.active_children() if child.name.startswith("EngineCore")]

    def close(self) -> None:
        """Drop the engine; its memory goes with it."""
        self.llm = None

    def conversation(self, image: Image.Image | None, task: Task = "description") -> list[dict[str, Any]]:
        """The chat that asks about one image, in vLLM's form; the same words about none for None."""
        schema = self._config.schema
        text = schema.prompt if task == "findings" and schema else self._config.prompt
        picture = [] if image is None else [{"type": "image_pil", "image_pil": image}]
        return [{"role": "user", "content": [*picture, {"type": "text", "text": text}]}]

    def sampling(self, temperature: float = 0.0, seed: int = 0, task: Task = "description") -> Any:
        """vLLM's sampling parameters; findings are held to the schema, token by token."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        common: dict[str, Any] = {"temperature": temperature, "seed": seed if temperature else None}
        schema = self._config.schema
        if task == "findings" and schema:
            held = StructuredOutputsParams(json=schema.json_schema)
            return SamplingParams(**common, max_tokens=schema.max_tokens, structured_outputs=held)
        common |= {name: value for name, value in self._config.engine_args.items() if name in OF_SAMPLING}
        return SamplingParams(**common, max_tokens=self._config.max_tokens)

    def _add(self, request: Request) -> str:
        sampling = self.sampling(request.temperature, request.seed, request.task)
        conversation = self.conversation(request.image, request.task)
        (internal_id,) = self.llm.enqueue_chat(conversation, sampling, use_tqdm=False)
        return internal_id.rpartition("-")[0]  # outputs carry the id without its random tail

    def _probe(self) -> Any:
        """One grey image through the engine: the prompt as it was rendered, and proof that the image is in it.

        The same question without an image is the measure: some models write their image tokens into the prompt's text.
        """
        try:
            seen = self._ask(self.conversation(Image.new("RGB", (448, 448), "grey")))
        except self._refusals as error:
            raise self._unanswered(error) from error
        unseen = self._ask(self.conversation(None))
        if len(seen.prompt_token_ids) <= len(unseen.prompt_token_ids):
            raise UserError(f"{self._config.model.id} does not see: its prompt holds no image", SEEING)
        self._n_blind_tokens = len(unseen.prompt_token_ids)
        return seen

    def _unanswered(self, error: Exception) -> UserError:
        """Why vLLM did not take the first question of all, in words of what to do about it."""
        model, reason = self._config.model.id, _last_line(error)
        if getattr(error, "parameter", None) == "input_tokens" or "maximum model length" in reason:
            return UserError(
                f"the context of {model} is too short for the prompt of one image: {reason}",
                "--engine-arg max_model_len=N with a larger N, or fewer tokens per image: --max-dynamic-patch 1",
            )
        if "chat template" in reason:
            return UserError(
                f"{model} has no chat template: {reason}",
                TEMPLATE,
            )
        return UserError(f"{model} does not see: its prompt holds no image ({reason})", SEEING)

    def _ask(self, conversation: list[dict[str, Any]]) -> Any:
        """One question, alone in the engine, and one token of an answer."""
        from vllm import SamplingParams

        self.llm.enqueue_chat(conversation, SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
        while True:
            for output in self.llm.llm_engine.step():
                if output.finished:
                    return output

    def _find_image_token(self, hf_config: Any) -> int | None:
        for name in ("image_token_id", "image_token_index", "img_context_token_id"):
            if getattr(hf_config, name, None) is not None:
                return int(getattr(hf_config, name))
        token = self.llm.get_tokenizer().get_vocab().get("<IMG_CONTEXT>")
        return None if token is None else int(token)

    def _answer(self, request: Request, output: Any) -> Answer:
        completion = output.outputs[0]
        return Answer(
            key=request.key,
            task=request.task,
            text=completion.text,
            finish_reason=str(completion.finish_reason),
            n_image_tokens=(n_image_tokens := self._count_image_tokens(output.prompt_token_ids)),
            n_prompt_tokens=len(output.prompt_token_ids),
            n_output_tokens=len(completion.token_ids),
            n_tiles=n_image_tokens // self._tokens_per_tile if self._tokens_per_tile else 0,
        )

    def _count_image_tokens(self, prompt: list[int]) -> int:
        """By the model's own token where it is known, else what the prompt has more than without an image."""
        if self._image_token is not None:
            return list(prompt).count(self._image_token)
        return len(prompt) - self._n_blind_tokens


def is_cpu_build() -> bool:
    """Whether the vLLM installed here computes on the CPU."""
    return "cpu" in _vllm_version() or _distribution() == "vllm-cpu"


def _distribution() -> str:
    from importlib.metadata import packages_distributions

    return packages_distributions()["vllm"][0]


def _vllm_version() -> str:
    return version(_distribution())


def _quieten_cpu_worker() -> None:
    """vLLM's CPU worker warns about `torch.set_num_threads` at every request: drop that one line.

    A filter, not a level: vLLM configures logging again when the engine is made, which resets levels.
    """
    worker = logging.getLogger("vllm.v1.worker.cpu_worker")
    worker.addFilter(lambda record: "torch.set_num_threads" not in record.getMessage())


def _unloadable(model: Model, error: Exception) -> UserError:
    """Why vLLM did not take the model, in words of what to do about it."""
    reason = _last_line(error)
    if "max_model_len" in reason:
        return UserError(
            f"vLLM cannot load {model.id} with this context: {reason}",
            "--engine-arg max_model_len=N, no more than the checkpoint was made for, or leave it out",
        )
    if "memory" in reason.lower():
        return UserError(f"vLLM cannot load {model.id}: {reason}", MORE_MEMORY)
    return UserError(f"vLLM cannot load {model.id} ({model.architecture}) as a model that sees: {reason}", SEEING)


def _last_line(error: Exception) -> str:
    """The last line of a message, without pydantic's advice and its `[type=…]`."""
    lines = [line.strip() for line in str(error).splitlines() if not line.strip().startswith("For further information")]
    return lines[-1].partition(" [type=")[0].removeprefix("Value error, ") if any(lines) else type(error).__name__
