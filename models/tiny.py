"""A tiny random Llama with its own tokenizer and chat template: for tests and the smoke profile (`base: tiny:0`).

It knows nothing (though a LoRA can teach it), but it is a real causal language model with grouped-query attention,
end-of-turn token and safetensors files, small enough to be built, trained and served in seconds on one core. The same
seed gives the same bytes, so its digest is stable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.quiet import quiet

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 1024
HIDDEN, LAYERS, HEADS, KV_HEADS = 64, 2, 4, 2
# Head and embeddings are one matrix and stay frozen under LoRA: with the usual 0.02 no adapter could reach a likely
# answer, for the logits are bounded by the norms. With these a LoRA learns eight answers by heart in 20 steps.
LAYER_STD, EMBEDDING_STD = 0.1, 0.3

# Only there so that common words of support conversations become one token each.
_CORPUS = """
You are a helpful assistant. You answer questions of customers of a shop, briefly and politely.
Where is my order? Your order is on its way and arrives in three working days. Thank you for waiting.
How do I return a parcel? You can return it within thirty days. Print the label from your account page.
I was charged twice for the same invoice. I am sorry. The second payment is refunded within five days.
What is the price of the annual plan? The annual plan costs ninety euros, and the monthly plan nine euros.
Can I change my address or my password? Yes, open the settings, choose profile, and save the new one.
My card was declined, what should I do? Please check the date and the number, or use another card.
The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid.
One two three four five six seven eight nine ten. 0 1 2 3 4 5 6 7 8 9 10 11 12 20 30 40 50 100.
Write the word in capital letters. Answer with yes or no. Give a list of items. Which one is larger?
Please tell me more about this product, its size, colour, weight and when it will be available again.
Hello! Hi, how can I help you today? I would like to cancel my subscription. Done, it ends this month.
We ship to Germany, Austria and Switzerland. Shipping is free above fifty euros. It takes two to four days.
The warranty lasts two years from the day of delivery. Keep your receipt, we will repair or replace it.
"""


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS.splitlines(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START, END],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """Write a random Llama (hidden 64, 2 layers, 4 query and 2 key/value heads, vocabulary <= 1024) to `folder`.

    Args:
        folder: where the files go; made when absent.
        seed: same seed, same bytes.

    Returns:
        `folder`, holding config.json, generation_config.json, model.safetensors and the tokenizer's files.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=LAYER_STD,
        bos_token_id=tokenizer.convert_tokens_to_ids(START),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.float32)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(EMBEDDING_STD / LAYER_STD)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        forget_writer_version(folder / name)
    return folder


def forget_writer_version(path: Path) -> None:
    """Drop `transformers_version` from a written config, so that the digest names the model and not its writer."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("transformers_version", None)
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
