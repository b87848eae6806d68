"""The plain way, as a user of Trainer and PEFT would write it: what `benchmarks/whole_job.py` compares a whole job with.

    python benchmarks/plain_trainer.py BASE IMAGES TRAIN.csv VAL.csv BATCH EPOCHS LEARNING_RATE DROPOUT OUT.json

One row a question, pictures opened and prepared for every batch, ViT and Q-Former in every step, all logits. Causal bases only.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Blip2ForConditionalGeneration, Blip2Processor, Trainer, TrainingArguments

PROMPT = "Question: {} Answer in one word:"


def main() -> None:
    base, images, train, val, batch, epochs, rate, dropout, output = sys.argv[1:]
    start = time.perf_counter()
    processor = Blip2Processor.from_pretrained(base)
    tokenizer, seconds = processor.tokenizer, {}
    model = Blip2ForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    end = model.config.text_config.eos_token_id
    layers = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    layers = [n for n, _ in model.named_modules() if n.startswith("language_model") and n.split(".")[-1] in layers]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=float(dropout), target_modules=layers))

    def collate(rows):
        pictures = [Image.open(Path(images) / row["image_name"]).convert("RGB") for row in rows]
        prompts = [PROMPT.format(row["question"]) for row in rows]
        tokenizer.padding_side = "right"
        whole = [f"{prompt} {row['answer']}" for prompt, row in zip(prompts, rows, strict=True)]
        inputs = processor(images=pictures, text=whole, return_tensors="pt", padding=True)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = mask.sum(1)
        # The end token behind each answer; the prompt and the padding are not learnt.
        ids = torch.cat([ids, torch.full((len(ids), 1), tokenizer.pad_token_id)], 1)
        mask = torch.cat([mask, torch.zeros(len(ids), 1, dtype=mask.dtype)], 1)
        rows_ = torch.arange(len(ids))
        ids[rows_, lengths], mask[rows_, lengths] = end, 1
        labels = torch.where(mask.bool(), ids, -100)
        for row, prompt in enumerate(prompts):
            labels[row, : processor.num_query_tokens + len(tokenizer(prompt)["input_ids"])] = -100
        return {"pixel_values": inputs["pixel_values"], "input_ids": ids, "attention_mask": mask, "labels": labels}

    arguments = TrainingArguments(
        output_dir=str(Path(output).with_suffix("")), per_device_train_batch_size=int(batch), num_train_epochs=float(epochs),
        learning_rate=float(rate), warmup_steps=50, remove_unused_columns=False, report_to=[], use_cpu=True, seed=42,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, logging_steps=100,
    )  # fmt: skip
    rows = pd.read_csv(train, keep_default_na=False).to_dict("records")
    training = time.perf_counter()
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
    seconds["training"] = time.perf_counter() - training

    model.eval()
    rows, right = pd.read_csv(val, keep_default_na=False).to_dict("records"), 0
    tokenizer.padding_side = "left"
    for asked in DataLoader(rows, batch_size=128, collate_fn=list):
        pictures = [Image.open(Path(images) / row["image_name"]).convert("RGB") for row in asked]
        prompts = [PROMPT.format(row["question"]) for row in asked]
        inputs = processor(images=pictures, text=prompts, return_tensors="pt", padding=True)
        ids = model.generate(
            **inputs, max_new_tokens=10, do_sample=False, eos_token_id=end, pad_token_id=tokenizer.pad_token_id
        )
        said = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += sum(text.strip() == row["answer"] for text, row in zip(said, asked, strict=True))
    seconds["all"] = time.perf_counter() - start
    Path(output).write_text(json.dumps({"seconds": seconds, "accuracy": right / len(rows)}))


if __name__ == "__main__":
    main()
