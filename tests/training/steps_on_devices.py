"""Takes training steps on simulated devices; runs in its own process.

python steps_on_devices.py DEVICES '[BATCH_NORM, STEPS, WEIGHT_SHARDS, OPTIMIZER]' ...

It prints a line of JSON for each of the cases.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets import BasicBlock, ResNet
from flax_resnets.data.batches import eval_batches, train_batch
from flax_resnets.training.config import Config
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.placement import make_mesh, to_devices, weight_shardings
from flax_resnets.training.recalibration import make_statistics_step
from flax_resnets.training.schedule import make_schedules
from flax_resnets.training.state import create_state
from flax_resnets.training.step import evaluate, make_eval_step, make_train_step


def main(batch_norm: str, steps: int, weight_shards: int, optimizer_name: str) -> dict:
    """Losses of the first steps; then statistics, recomputed ones, the evaluation, and the all-reduces in a step."""
    config = Config(
        model="a small one: made below",
        dataset="noise: made below",
        image_size=12,
        mean=(0.5,),
        std=(0.25,),
        crop_scale=(0.5, 1.0),
        batch_size=32,
        epochs=100,
        learning_rate=5e-3,
        clip_norm=1.0,
        batch_norm=batch_norm,
        weight_shards=weight_shards,
        optimizer=optimizer_name,
    )
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 203).astype(np.int32)
    images = (random.integers(0, 150, (203, 14, 14, 1)) + 10 * labels[:, None, None, None]).astype(np.uint8)

    # Without ReLU's kink, across which rounding can carry an activation.
    model = ResNet((1, 1), BasicBlock, 10, width=16, stem="small", activation="silu", batch_norm=batch_norm)
    optimizer = make_optimizer(config, *make_schedules(config, steps=600))
    mesh = make_mesh(weight_shards)

    def batch_of(step: int):
        return to_devices(train_batch(images, labels, config.batch_size, config.seed, step), mesh)

    def new_state():
        return create_state(model, optimizer, (12, 12, 1), config.seed)

    shardings = weight_shardings(jax.eval_shape(new_state), mesh)
    state = jax.jit(new_state, out_shardings=shardings)()
    train_step = make_train_step(model, optimizer, config, mesh).lower(state, batch_of(0)).compile()
    losses = []
    for step in range(steps):
        state, output = train_step(state, batch_of(step))
        losses.append(float(output.loss))
    eval_step = make_eval_step(model, config, mesh)
    statistics_step = make_statistics_step(model, config, mesh)
    recalibrated = statistics_step(state.params, state.batch_stats, jnp.int32(0), batch_of(0))
    evaluation = evaluate(eval_step, state, eval_batches(images, labels, 64), mesh)
    program = train_step.as_text()
    return {
        "losses": losses,
        "statistics": [leaf.ravel().tolist() for leaf in jax.tree.leaves(jax.device_get(state.batch_stats))],
        "recalibrated": [leaf.ravel().tolist() for leaf in jax.tree.leaves(jax.device_get(recalibrated))],
        "evaluation": [np.ravel(figure).tolist() for figure in evaluation if figure is not None],
        "bytes_of_weights": sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.params)),
        "placed_as_before": jax.tree.all(
            jax.tree.map(lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), state, shardings)
        ),
        "all_reduces": program.count(" all-reduce(") + program.count(" all-reduce-start("),
    }


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    for case in sys.argv[2:]:
        print(json.dumps(main(*json.loads(case))))
