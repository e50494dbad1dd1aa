"""The torch store is tested beside its twin in test_store, and through the vector door in test_vector."""

import numpy as np
import pytest
import torch

import textgym


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_output_lives_on_the_device(letters):
    envs = textgym.TextGenVectorEnv(
        2, prompts=["a"], tokenizer=letters, reward_fn=lambda e: [1.0] * len(e), output="torch", device="cuda"
    )
    obs, _ = envs.reset(seed=0)
    assert obs.is_cuda
    obs, reward, terminated, truncated, info = envs.step(torch.tensor([1, 2], device="cuda"))
    for tensor in (obs, reward, terminated, truncated, info["final_obs"], info["final_info"]["token_rewards"]):
        assert tensor.is_cuda
    assert textgym.releases(info)[0].token_rewards.tolist() == [1.0]


def test_actions_of_any_integer_type_are_taken(letters):
    for dtype in (torch.int64, torch.int32, torch.uint8):
        envs = textgym.TextGenVectorEnv(1, prompts=["a"], tokenizer=letters, reward_fn=lambda e: [1.0], output="torch")
        envs.reset(seed=0)
        assert bool(envs.step(torch.tensor([1], dtype=dtype))[2][0])
    envs.reset(seed=0)
    assert bool(envs.step(np.array([1]))[2][0])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions have shape \(1,\) and dtype (torch\.)?float32"):
        envs.step(torch.tensor([1.0]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_integers_work_with_stop_strings_and_large_vocabularies(dtype):
    tokenizer = textgym.symbol_tokenizer([chr(0x4E00 + i) for i in range(300)])
    envs = textgym.TextGenVectorEnv(
        2, prompts=["一"], tokenizer=tokenizer, reward_fn=lambda e: [0.0] * len(e), stop=["丁"], output="torch"
    )
    envs.reset(seed=0)
    assert envs.step(torch.tensor([3, 4], dtype=dtype))[2].tolist() == [True, False]
    assert envs.step(np.array([4, 4], dtype=np.uint32))[2].tolist() == [False, False]
