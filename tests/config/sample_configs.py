"""Configurations that several tests read."""

from __future__ import annotations

SMALLEST = """
data: {name: mnist}
network:
  - flatten
  - dense: {units: 10}
"""

EVERYTHING = """
format: 1
name: everything
seed: 9223372036854775807
data:
  name: idx
  path: some/where
  train_examples: 10
  validation_examples: 0
  when_unavailable: error
network:
  - conv: {filters: 4, kernel: [5, 3], stride: [2, 1], padding: [0, 2], dilation: [1, 2], groups: 1, bias: false}
  - relu
  - max_pool: {window: [2, 3], stride: 1, padding: [1, 0]}
  - conv: {filters: 4, kernel: 1, stride: 1, padding: 0, dilation: 1, groups: 2, bias: true}
  - relu
  - flatten
  - dense: {units: 10}
training:
  epochs: 3
  max_steps: 5
  batch_size: 7
  tile: 2
  optimizer: {name: adam, lr: 0.001, beta1: 0, beta2: 0.5, eps: 1.5e-7, weight_decay: 1}
  schedule: {name: step, warmup_steps: 3, decay_steps: 4, final_lr: 1.0e-5, every_steps: 6, factor: 1}
  kernels: loops
  dtype: float64
logging: {every_steps: 1, evaluate_every_epochs: null, evaluate_every_steps: 8}
checkpoints: {every_steps: null, keep_last: 1, keep_best: false}
workers: {max_restarts: 0}
"""
