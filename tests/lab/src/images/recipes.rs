//! How each test image is made. To add one, add a line to [`RECIPES`]; nothing else knows of it.
//!
//! Paths, ports, users and names of files are what upstream's tests expect of an image; the
//! comments say which test does where that is not obvious.

use super::list::Reference;

/// A test image.
#[derive(Debug)]
pub struct Recipe {
    /// The repository, or the end of it from a `/` on.
    pub repository: &'static str,
    /// What its layers lie on.
    pub below: Below,
    /// Its own layers, lowest first. Images with equal layers from the lowest one on share them.
    pub layers: &'static [&'static [Item]],
    /// The program and its first arguments.
    pub entrypoint: &'static [&'static str],
    /// The arguments that a pod's `args` replace.
    pub cmd: &'static [&'static str],
}

/// What an image's own layers lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// The Debian files of [`super::base`].
    Debian,
    /// Files that name users, and a place for temporary ones. A program that is not static brings
    /// its libraries.
    Nothing,
    /// Busybox with all its commands.
    Busybox,
}

/// Something in a layer. On Debian, `/bin`, `/sbin` and `/lib` are links, so paths name what is
/// behind them.
#[derive(Debug)]
pub enum Item {
    /// An executable: path, mode, name of the program.
    Program(&'static str, u32, &'static str),
    /// A file that everybody may read.
    Text(&'static str, &'static str),
    /// A symbolic link and its target.
    Link(&'static str, &'static str),
    /// A directory that everybody may read.
    Directory(&'static str),
    /// A certificate for this host's loopback addresses, and its key; made anew for each build.
    Certificate(&'static str, &'static str),
}

use Item::{Certificate, Directory, Link, Program, Text};

/// The name server; its image has it at the same path as the agnhost image, where tests of a
/// pod's `dnsConfig` start it.
const COREDNS: &[Item] = &[Program("coredns", 0o755, "coredns")];

/// The program of many commands that most tests run.
const AGNHOST: &[Item] = &[
    Program("agnhost", 0o755, "agnhost"),
    // A test replaces the entry point with this name and looks which one ran.
    Link("agnhost-2", "agnhost"),
    // `netexec` stores what is sent to it.
    Directory("uploads"),
    // `porter` serves TLS with these.
    Certificate("localhost.crt", "localhost.key"),
    // Tests of supplementary groups expect this user and its group.
    Text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    ),
    Text(
        "etc/group",
        "root:x:0:\n\
         user-defined-in-image:x:1000:\n\
         group-defined-in-image:x:50000:user-defined-in-image\n\
         nogroup:x:65534:\n",
    ),
];

/// What tests of a rolling update tell the two apart by: one of the two versions.
const NAUTILUS: &[Item] = &[Text("data.json", "{\"image\": \"nautilus.jpg\"}\n")];

/// The other version. Tests of image volumes read both files.
const KITTEN: &[Item] = &[
    Text("data.json", "{\"image\": \"kitten.jpg\"}\n"),
    Text("etc/os-release", "NAME=\"Alpine Linux\"\nID=alpine\n"),
];

const NGINX: &[Item] = &[
    Text(
        "etc/nginx/nginx.conf",
        "daemon off;\n\
         worker_processes 1;\n\
         error_log /dev/stderr warn;\n\
         events {}\n\
         http {\n  access_log /dev/stdout;\n  server {\n    listen 80;\n    \
         root /usr/share/nginx/html;\n  }\n}\n",
    ),
    Text("usr/share/nginx/html/index.html", "<title>Welcome to nginx!</title>\n"),
];

/// All of them.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        repository: "e2e-test-images/agnhost",
        below: Below::Debian,
        layers: &[COREDNS, AGNHOST],
        entrypoint: &["/agnhost"],
        cmd: &["pause"],
    },
    Recipe {
        repository: "e2e-test-images/kitten",
        below: Below::Debian,
        layers: &[COREDNS, AGNHOST, KITTEN],
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
    },
    Recipe {
        repository: "e2e-test-images/nautilus",
        below: Below::Debian,
        layers: &[COREDNS, AGNHOST, NAUTILUS],
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
    },
    Recipe {
        repository: "e2e-test-images/busybox",
        below: Below::Busybox,
        layers: &[],
        entrypoint: &[],
        cmd: &["sh"],
    },
    Recipe {
        repository: "e2e-test-images/jessie-dnsutils",
        below: Below::Debian,
        layers: &[],
        entrypoint: &[],
        cmd: &["/bin/bash"],
    },
    // What later versions call the one above.
    Recipe {
        repository: "e2e-test-images/glibc-dns-testing",
        below: Below::Debian,
        layers: &[],
        entrypoint: &[],
        cmd: &["/bin/bash"],
    },
    Recipe {
        repository: "e2e-test-images/nginx",
        below: Below::Debian,
        layers: &[NGINX],
        entrypoint: &[],
        cmd: &["nginx"],
    },
    // Prints its effective user: root's only where setuid is honoured.
    Recipe {
        repository: "e2e-test-images/nonewprivs",
        below: Below::Nothing,
        layers: &[&[Program("usr/local/bin/nnp", 0o6755, "nonewprivs")]],
        entrypoint: &[],
        cmd: &["nnp"],
    },
    Recipe {
        repository: "e2e-test-images/sample-apiserver",
        below: Below::Nothing,
        layers: &[&[Program("sample-apiserver", 0o755, "sample-apiserver")]],
        entrypoint: &["/sample-apiserver"],
        cmd: &[],
    },
    // The sample API server's store, started by its path.
    Recipe {
        repository: "etcd",
        below: Below::Nothing,
        layers: &[&[Program("usr/local/bin/etcd", 0o755, "etcd")]],
        entrypoint: &[],
        cmd: &["/usr/local/bin/etcd"],
    },
    Recipe {
        repository: "pause",
        below: Below::Nothing,
        layers: &[&[Program("pause", 0o755, "pause")]],
        entrypoint: &["/pause"],
        cmd: &[],
    },
    // No test asks for it: the lab's name server, when that is upstream's.
    Recipe {
        repository: "coredns/coredns",
        below: Below::Debian,
        layers: &[COREDNS],
        entrypoint: &["/coredns"],
        cmd: &[],
    },
];

impl Recipe {
    /// The recipe for an image. Private repositories of the same name have none: that they cannot
    /// be pulled is what tests want them for.
    pub fn of(reference: &Reference<'_>) -> Option<&'static Self> {
        RECIPES.iter().find(|recipe| reference.is_of(recipe.repository))
    }

    /// The programs that it needs.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        self.layers.iter().copied().flatten().filter_map(|item| match item {
            Program(_, _, name) => Some(*name),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository_of(reference: &str) -> Option<&'static str> {
        Some(Recipe::of(&Reference::parse(reference).unwrap())?.repository)
    }

    #[test]
    fn an_image_finds_its_recipe_whatever_its_tag() {
        for tag in ["2.55", "2.59"] {
            let found = repository_of(&format!("r.test/e2e-test-images/agnhost:{tag}"));
            assert_eq!(found, Some("e2e-test-images/agnhost"));
        }
        assert_eq!(repository_of("r.test/etcd:3.6.6-0"), Some("etcd"));
        assert_eq!(repository_of("r.test/pause:3.10.1"), Some("pause"));
    }

    #[test]
    fn images_that_must_not_be_there_have_no_recipe() {
        for reference in [
            "private.test/k8s-authenticated-test/agnhost:2.6",
            "invalid.test/invalid/alpine:3.1",
            "r.test/e2e-test-images/volume/nfs:1.4",
            "r.test/sig-storage/csi-etcd:1",
        ] {
            assert_eq!(repository_of(reference), None, "{reference}");
        }
    }

    #[test]
    fn no_recipe_hides_another_and_no_path_leads_over_a_link() {
        for recipe in RECIPES {
            let text = format!("r.test/{}:1", recipe.repository);
            let found = Recipe::of(&Reference::parse(&text).unwrap()).unwrap();
            assert_eq!(found.repository, recipe.repository);
            for item in recipe.layers.iter().copied().flatten() {
                let (Program(path, ..) | Text(path, _) | Link(path, _) | Directory(path)) = item
                else {
                    continue;
                };
                let first = path.split('/').next().unwrap();
                assert!(!["bin", "sbin", "lib", "lib64", ""].contains(&first), "{path}");
            }
        }
    }

    #[test]
    fn programs_are_those_of_all_layers() {
        let recipe = Recipe::of(&Reference::parse("r.test/e2e-test-images/kitten:1").unwrap());
        let programs: Vec<&str> = recipe.unwrap().programs().collect();
        assert_eq!(programs, ["coredns", "agnhost"]);
    }
}
