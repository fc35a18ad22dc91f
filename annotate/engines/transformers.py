"""transformers, batch by batch: slower than vLLM, and at home on any machine that runs torch."""

from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from typing import Any

from PIL import Image

from annotate.engines.internvl import tile_args, tokens_per_tile
from annotate.engines.records import TEMPLATE, Answer, EngineConfig, EngineFacts, Feed, Request
from builders.errors import UserError
from builders.torch_repair import repair

DEFAULT_BATCH = 8


class TransformersEngine:
    """`AutoModelForImageTextToText.generate` over padded batches, on a GPU where there is one."""

    def __init__(self, config: EngineConfig) -> None:
        if config.schema is not None:
            raise UserError(
                "engine 'transformers' cannot hold an answer to a schema; --schema needs 'vllm' or 'openai'",
                "vl-dermnet annotate … --engine vllm",
            )
        self._config = config
        self._batch = config.max_in_flight or DEFAULT_BATCH
        self._put_by: list[Request] = []

    def start(self) -> EngineFacts:
        """Load model and processor. `UserError` if transformers does not know the checkpoint's format."""
        repair()
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        config, model = self._config, self._config.model
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        hub: dict[str, Any] = {"revision": model.hub_revision, "trust_remote_code": model.trust_remote_code}
        try:
            self._processor: Any = AutoProcessor.from_pretrained(model.location, padding_side="left", **hub)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                model.location, dtype=config.dtype, use_safetensors=True, **hub, **config.engine_args
            )
        except (ValueError, OSError) as error:
            raise UserError(f"transformers cannot load {model.id} ({model.architecture}): {error}") from error
        self._model = loaded.to(self._device).eval()
        self._tile_args = tile_args(model.architecture, config.max_dynamic_patch) or {}
        self._tokens_per_tile = tokens_per_tile(loaded.config)
        stop = loaded.generation_config.eos_token_id or self._processor.tokenizer.eos_token_id
        self._stop: set[int] = set(stop) if isinstance(stop, list) else {stop}
        try:
            rendered: str = self._processor.apply_chat_template([_turn(config.prompt)], add_generation_prompt=True)[0]
        except ValueError as error:
            raise UserError(f"{model.id} has no chat template: {error}", TEMPLATE) from error
        return EngineFacts(
            engine_id=f"transformers {version('transformers')}",
            rendered_prompt=rendered,
            dtype=str(loaded.dtype).removeprefix("torch."),
            versions={"transformers": version("transformers"), "torch": version("torch")},
            capacity=self._batch,
            window=2 * self._batch,
            tells_image_tokens=True,
        )

    def describe(self, feed: Feed) -> Iterator[Answer]:
        """Answer batch after batch; a batch that fails is asked again image by image."""
        while True:
            batch = self._next_batch(feed)
            if not batch:
                return
            try:
                yield from self._generate(batch)
            except (ValueError, RuntimeError) as error:
                if len(batch) == 1:
                    yield Answer(batch[0].key, error=f"the engine refused it: {error}")
                    continue
                yield from self._one_by_one(batch)

    def processes(self) -> list[BaseProcess]:
        """None: the model runs in this one."""
        return []

    def close(self) -> None:
        """Drop the model; its memory goes with it."""
        del self._model

    def _next_batch(self, feed: Feed) -> list[Request]:
        """Requests of one temperature, because one call samples at one; those of another wait for the next batch."""
        batch = self._put_by or feed.take_many(self._batch)
        same = [request for request in batch if request.temperature == batch[0].temperature]
        self._put_by = [request for request in batch if request.temperature != batch[0].temperature]
        return same

    def _one_by_one(self, batch: list[Request]) -> Iterator[Answer]:
        for request in batch:
            try:
                yield from self._generate([request])
            except (ValueError, RuntimeError) as error:
                yield Answer(request.key, error=f"the engine refused it: {error}")

    def _generate(self, batch: list[Request]) -> list[Answer]:
        import torch

        inputs = self._processor.apply_chat_template(
            [_turn(self._config.prompt, request.image) for request in batch],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, **self._tile_args},
        ).to(self._device, dtype=self._model.dtype)
        temperature = batch[0].temperature
        if temperature:
            torch.manual_seed(batch[0].seed)
        with torch.inference_mode():
            sequences = self._model.generate(
                **inputs,
                max_new_tokens=self._config.max_tokens,
                do_sample=temperature > 0,
                **({"temperature": temperature} if temperature else {}),
            )
        n_padded = inputs["input_ids"].shape[1]  # (batch, tokens), padded on the left
        image_token = self._model.config.image_token_id
        return [
            self._answer(request, prompt[mask.bool()].tolist(), sequence[n_padded:].tolist(), image_token)
            for request, prompt, mask, sequence in zip(
                batch, inputs["input_ids"], inputs["attention_mask"], sequences, strict=True
            )
        ]

    def _answer(self, request: Request, prompt: list[int], output: list[int], image_token: int) -> Answer:
        end = next((place for place, token in enumerate(output) if token in self._stop), None)
        tokens = output if end is None else output[: end + 1]
        n_image_tokens = prompt.count(image_token)
        return Answer(
            key=request.key,
            text=self._processor.tokenizer.decode(tokens, skip_special_tokens=True),
            finish_reason="length" if end is None else "stop",
            n_image_tokens=n_image_tokens,
            n_prompt_tokens=len(prompt),
            n_output_tokens=len(tokens),
            n_tiles=n_image_tokens // self._tokens_per_tile if self._tokens_per_tile else 0,
        )


def _turn(prompt: str, image: Image.Image | None = None) -> list[dict[str, Any]]:
    picture = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [picture, {"type": "text", "text": prompt}]}]
