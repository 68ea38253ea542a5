//! `cargo xtask up`: a whole region on this machine.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::paths::Paths;
use crate::progress::Step;
use crate::supervise::Service;
use crate::{apt, cargo, image, release};

/// How long the services may take to become healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);

/// Where and on which addresses.
#[derive(clap::Args)]
pub struct Args {
    /// Everything that Marina keeps; relative to the checkout.
    #[arg(long, default_value = ".marina")]
    data_dir: PathBuf,
    /// Address of the console and the REST API.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of the gateway to the clusters' API servers.
    #[arg(long, default_value = "127.0.0.1:8443")]
    gateway_listen: SocketAddr,
    /// Address on which the host agent takes orders.
    #[arg(long, default_value = "127.0.0.1:7443")]
    agent_listen: SocketAddr,
    /// Loopback ports for the control planes, as `first-last`.
    #[arg(long, default_value = "20000-29999")]
    port_range: String,
    /// Start what is already built, without asking cargo and the image build.
    #[arg(long)]
    no_build: bool,
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Starts everything, keeps it running, and stops it at Ctrl-C or SIGTERM.
pub fn run(paths: &Paths, args: &Args) -> anyhow::Result<()> {
    if !apt::is_root() {
        bail!("Marina makes network namespaces and mounts: run this as root (sudo -E)");
    }
    let image = prepare(paths, args)?;
    let data = paths.resolve(&args.data_dir);
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    // Keys, password hashes and every tenant's data: for nobody else on this machine.
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", data.display()))?;
    let _lock = lock(&data)?;
    install_signal_handlers();

    let release = release::install(paths, &data)?;
    setup(paths, &data, args)?;
    let mut services = services(paths, &data, &image, &release, args)?;
    for service in &mut services {
        service.start()?;
    }
    let result = wait_until_healthy(&mut services, args).map(|()| {
        greet(paths, &data, args);
        while !STOP.load(Ordering::Relaxed) {
            for service in &mut services {
                service.tend();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let step = Step::start("Stopping");
    for service in services.iter_mut().rev() {
        service.stop();
    }
    step.done();
    result?;
    println!("Stopped. Clusters keep running; `cargo xtask up` finds them again, and");
    println!("`cargo xtask down` removes them with everything else.");
    Ok(())
}

/// Installs, builds and bakes what is missing. Returns the image directory.
fn prepare(paths: &Paths, args: &Args) -> anyhow::Result<PathBuf> {
    if args.no_build {
        return Ok(paths.cache.join("image"));
    }
    apt::ensure(paths, apt::RUN)?;
    let step = Step::start("Building Marina");
    cargo::build_workspace(paths)?;
    step.done();
    image::bake(paths)
}

/// Holds the data directory for this process; `down` reads the process id from it.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("up.lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        let _ = file.read_to_string(&mut pid);
        bail!("Marina already runs here, as process {}", pid.trim());
    }
    file.rewind().and_then(|()| file.set_len(0)).context("cannot write the lock file")?;
    writeln!(file, "{}", std::process::id()).context("cannot write the lock file")?;
    Ok(file)
}

#[allow(unsafe_code)]
fn install_signal_handlers() {
    let handler = stop as extern "C" fn(libc::c_int);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Makes keys, database, host and administrator, if they are not there yet.
fn setup(paths: &Paths, data: &Path, args: &Args) -> anyhow::Result<()> {
    let mut init = Command::new(paths.bin("provisioner"));
    init.arg("init").arg("--data-dir").arg(data);
    init.arg("--agent").arg(args.agent_listen.to_string());
    output_of(&mut init)?;
    let mut portal = Command::new(paths.bin("portal"));
    portal.arg("setup").arg("--database").arg(data.join("marina.db"));
    portal.arg("--secret-key-file").arg(data.join("secret.key"));
    let printed = output_of(&mut portal)?;
    let path = data.join("admin-password");
    let one_time = printed.lines().find_map(|line| line.strip_prefix("one-time password: "));
    match one_time {
        Some(password) => write_private(&path, password)?,
        // It was used: nobody can sign in with it any more.
        None if printed.contains("password of its own") => drop(fs::remove_file(&path)),
        None => {}
    }
    Ok(())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.create(true).write(true).truncate(true).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{text}").with_context(|| format!("cannot write {}", path.display()))
}

/// What the first host's agent keeps; `provisioner init` puts its certificate there.
pub fn agent_dir(data: &Path) -> PathBuf {
    data.join("agents/h1")
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn services(
    paths: &Paths,
    data: &Path,
    image: &Path,
    release: &Path,
    args: &Args,
) -> anyhow::Result<Vec<Service>> {
    let (database, key) = (data.join("marina.db"), data.join("secret.key"));
    let mut portal = Command::new(paths.bin("portal"));
    portal.arg("--database").arg(&database).arg("--secret-key-file").arg(&key);
    portal.arg("--listen").arg(args.listen.to_string());
    portal.arg("--gateway-address").arg(args.gateway_listen.to_string());

    let mut controller = Command::new(paths.bin("provisioner"));
    controller.arg("controller").arg("--database").arg(&database);
    controller.arg("--secret-key-file").arg(&key);
    controller.arg("--pki-dir").arg(data.join("pki"));

    // The agent runs from the release, so that a build does not replace the launcher under it.
    let mut agent = Command::new(release.join("provisioner"));
    agent.arg("agent").arg("--data-dir").arg(agent_dir(data));
    agent.arg("--listen").arg(args.agent_listen.to_string());
    agent.arg("--gateway-listen").arg(args.gateway_listen.to_string());
    agent.arg("--release-dir").arg(release).arg("--image-dir").arg(image);
    agent.arg("--port-range").arg(&args.port_range);
    for driver in ["sandbox", "qemu"] {
        let executable = paths.bin(&format!("marina-driver-{driver}"));
        agent.arg("--driver").arg(format!("{driver}={}", executable.display()));
    }
    let logs = data.join("logs");
    fs::create_dir_all(&logs).context("cannot make the log directory")?;
    Ok(vec![
        Service::new("agent", agent, &logs),
        Service::new("controller", controller, &logs),
        Service::new("portal", portal, &logs),
    ])
}

/// Waits until the portal's database answers, the agent and the gateway accept connections, and no
/// service has just ended: what answers on a port may be somebody else.
fn wait_until_healthy(services: &mut [Service], args: &Args) -> anyhow::Result<()> {
    let step = Step::start("Starting Marina");
    let deadline = Instant::now() + HEALTHY_WITHIN;
    loop {
        if STOP.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        for service in services.iter_mut() {
            service.tend();
        }
        if let Some(service) = services.iter().find(|service| service.keeps_ending()) {
            bail!("a service does not stay up. {}", service.last_words());
        }
        let missing = [
            ("services", services.iter().all(Service::is_steady)),
            ("portal", ready(args.listen)),
            ("agent", TcpStream::connect(args.agent_listen).is_ok()),
            ("gateway", TcpStream::connect(args.gateway_listen).is_ok()),
        ];
        let missing: Vec<_> = missing.iter().filter(|(_, up)| !up).map(|(name, _)| *name).collect();
        if missing.is_empty() {
            step.done();
            return Ok(());
        }
        if Instant::now() > deadline {
            let logs: Vec<_> = services.iter().map(Service::last_words).collect();
            bail!("not healthy after 60 s: {}\n{}", missing.join(", "), logs.join("\n"));
        }
        step.say(&format!("waiting for {}", missing.join(", ")));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// True when `GET /readyz` answers 200.
fn ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn greet(paths: &Paths, data: &Path, args: &Args) {
    println!();
    println!("  Marina runs.");
    println!("  Console    http://{}", args.listen);
    match fs::read_to_string(data.join("admin-password")) {
        Ok(password) => {
            println!("  Sign in    admin  /  {}", password.trim());
            println!("             (one time: you choose your own password at the first sign-in)");
        }
        Err(_) => println!("  Sign in    admin"),
    }
    println!("  Gateway    {}", args.gateway_listen);
    println!("  Logs       {}/", data.join("logs").display());
    println!();
    println!("  Next, in another terminal:");
    let marina = paths.bin("marina");
    println!("    {} login --server http://{}", marina.display(), args.listen);
    println!("    {} clusters create demo --wait", marina.display());
    println!();
    println!(
        "  Ctrl-C stops Marina; clusters keep running. `cargo xtask down` removes everything."
    );
}
