//! Bottleneck adapters, differences, and copies of the base's own parameters.

use super::{Row, Start};
use crate::subject::{Sizes, Target};
use peft_core::methods::{
    Activation, BottleneckConfig, BottleneckInit, Common, DiffPruningConfig, FullConfig, Placement, Scaling,
};
use peft_core::target::Names;

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let (d, size) = (s.hidden, 6);
    let bottleneck = BottleneckConfig { bottleneck_size: size, common: common.clone(), ..Default::default() };
    // Down and up, with biases, at every block; `more` is what a block has beside them.
    let count =
        |blocks: i64, more: i64| s.layers * blocks * (size * (d + 1) + d * (size + 1) + more) + s.head;
    let sixteenth = d / 16;
    let houlsby = sixteenth * (d + 1) + d * (sixteenth + 1);
    let row = |name, site, count, config: BottleneckConfig| {
        Row::new(name, config, count).refused("bottleneck adapter", site)
    };
    let diff = DiffPruningConfig {
        // Most gates are open: a gate has two kinks, where it has no slope.
        alpha_init: 2.0,
        targets: Names::list(s.targets.iter().map(|t| t.name)).into(),
        common: common.clone(),
        ..DiffPruningConfig::default()
    };
    let all = |t: &Target| t.out * (t.inp + i64::from(s.biases > 0));
    let diffs = s.layers * s.targets.iter().map(all).sum::<i64>();
    vec![
        row(
            "bottleneck",
            s.attention,
            count(2, 0),
            BottleneckConfig { scaling: Scaling::Fixed(1.5), ..bottleneck.clone() },
        ),
        row(
            "bottleneck after the layer",
            s.layer,
            count(1, 0),
            BottleneckConfig {
                placement: vec![Placement::Layer],
                non_linearity: Activation::Relu,
                ..bottleneck.clone()
            },
        ),
        row(
            "bottleneck, parallel, learned scale",
            s.feed_forward,
            count(1, 1),
            BottleneckConfig {
                placement: vec![Placement::FeedForward],
                non_linearity: Activation::Silu,
                is_parallel: true,
                scaling: Scaling::Learned,
                ..bottleneck.clone()
            },
        ),
        row(
            "bottleneck, near identity",
            s.attention,
            count(2, 0),
            BottleneckConfig {
                init_weights: BottleneckInit::NearIdentity,
                non_linearity: Activation::Tanh,
                ..bottleneck.clone()
            },
        )
        .starts(Start::Near(3e-2)),
        row(
            "bottleneck, norms of its own",
            s.feed_forward,
            count(1, 4 * d),
            BottleneckConfig {
                placement: vec![Placement::FeedForward],
                ln_before: true,
                ln_after: true,
                init_weights: BottleneckInit::MamAdapter,
                ..bottleneck.clone()
            },
        ),
        Row {
            dropout: true,
            ..row(
                "bottleneck, norm of the sum, dropout",
                s.attention,
                count(2, 2 * d),
                BottleneckConfig {
                    ln_after: true,
                    adapter_residual_before_ln: true,
                    dropout: 0.2,
                    ..bottleneck
                },
            )
            .starts(Start::Other)
        },
        row(
            "bottleneck, Houlsby",
            s.attention,
            s.layers * 2 * houlsby + s.head,
            BottleneckConfig { common: common.clone(), ..BottleneckConfig::houlsby() },
        )
        .starts(Start::Near(3e-2)),
        row(
            "bottleneck, Pfeiffer, one layer left out",
            s.feed_forward,
            (s.layers - 1) * houlsby + s.head,
            BottleneckConfig { leave_out: vec![1], common: common.clone(), ..BottleneckConfig::pfeiffer() },
        )
        .starts(Start::Near(3e-2)),
        Row { dropout: true, ..Row::new("diff pruning", diff, 2 * diffs + s.head) },
        Row {
            more: 0,
            hides: true,
            ..Row::new("full fine-tuning", FullConfig { common: common.clone() }, s.all)
        },
    ]
}
