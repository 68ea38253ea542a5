//! ImageLocality: better a node that has the pod's large images already, weighed by how many nodes
//! have them, so that not every pod goes to the one node that pulled first.

use super::{MAX_SCORE, Plugin};
use crate::cluster::{Cluster, NodeInfo};
use crate::pod::PodInfo;

/// See the module documentation.
pub struct ImageLocality;

/// Bytes below which having the images makes no difference.
const SMALL: i64 = 23 * 1024 * 1024;
/// Bytes per container above which more makes no difference.
const LARGE: i64 = 1000 * 1024 * 1024;

/// The name under which a container runtime lists an image: with a tag.
fn listed_name(image: &str) -> String {
    let after_slash = image.rsplit('/').next().unwrap_or(image);
    if after_slash.contains(':') || after_slash.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo]) -> Option<Vec<i64>> {
        let spec = pod.spec();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let images: Vec<_> =
            containers.filter_map(|c| c.image.as_deref().map(listed_name)).collect();
        let everywhere = cluster.nodes().count().max(1) as i64;
        let spread: Vec<_> = images
            .iter()
            .map(|image| {
                cluster.nodes().filter(|node| node.images.contains_key(image)).count() as i64
            })
            .collect();
        let largest = LARGE * images.len().max(1) as i64;
        let score = |node: &&NodeInfo| {
            let sizes = images
                .iter()
                .zip(&spread)
                .filter_map(|(image, nodes)| Some(node.images.get(image)? * nodes / everywhere));
            let sum = sizes.sum::<i64>().clamp(SMALL, largest);
            MAX_SCORE * (sum - SMALL) / (largest - SMALL)
        };
        Some(nodes.iter().map(score).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    #[test]
    fn a_node_with_the_image_is_better() {
        let image =
            json!({"status": {"images": [{"names": ["big:latest"], "sizeBytes": 900 << 20}]}});
        let cluster = cluster(&[node("has", image), node("has-not", json!({}))]);
        let nodes: Vec<_> = cluster.nodes().collect();
        let pod = pod("p", json!({"containers": [{"name": "c", "image": "big"}]}));
        let scores = ImageLocality.score(&pod, &cluster, &nodes).unwrap();
        assert!(scores[0] > 40 && scores[1] == 0, "{scores:?}");
    }
}
