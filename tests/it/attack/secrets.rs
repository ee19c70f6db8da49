//! No secret is shown because it stands at the wrong place, nothing that a configuration names hangs or fills the
//! gateway, and who could read or change what is secret is said.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::harness::{Caller, Request, eventually, fixture_path, in_time};
use crate::proc;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");
const LEAST: &str = "[tenants.acme]\n[auth]\nanonymous = \"acme\"\n[servers.s]\ncommand = \"/bin/cat\"\n";
const JWT: &str = "[auth.jwt]\nalgorithms = [\"HS256\"]\nissuers = [\"i\"]\naudiences = [\"a\"]\n";
const KEY: &str = "slk_local_0123456789abcdef0123456789abcdef";

/// Runs a command to its end, which must come soon: exit code and all that it has said.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(SLUICE);
    command.args(arguments).env_clear().envs(environment.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = in_time("it ends", command.spawn().unwrap().wait_with_output()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

/// Checks a configuration: exit code and all that is said.
async fn check(folder: &Path, text: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let path = folder.join("sluice.toml");
    std::fs::write(&path, text).unwrap();
    run(&["check", "--config", path.to_str().unwrap()], environment).await
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_wherever_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    std::fs::File::create(path("endless")).unwrap().set_len(1 << 40).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    for (name, says) in [
        (path("fifo"), "a FIFO or a pipe, and no regular file"),
        ("/dev/zero".to_owned(), "a device, and no regular file"),
        (path("folder"), "a folder, and no regular file"),
        (path("endless"), "larger than"),
    ] {
        let refused = |(code, said): (Option<i32>, String)| {
            assert!(code.is_some_and(|code| code != 0) && said.contains(says), "{name}: {code:?} {said}");
        };
        refused(run(&["check", "--config", &name], &[]).await);
        refused(run(&["serve", "--config", &name], &[]).await);
        refused(run(&["check", "--mcp-servers", &name], &[]).await);
        for source in ["secret_file", "jwks_file"] {
            let algorithm = if source == "jwks_file" { JWT.replace("HS256", "RS256") } else { JWT.to_owned() };
            refused(check(folder.path(), &format!("{LEAST}{algorithm}{source} = {name:?}\n"), &[]).await);
        }
        refused(check(folder.path(), &format!("{LEAST}[servers.s.env]\nA = \"file:{name}\"\n"), &[]).await);
        refused(check(folder.path(), LEAST, &[("SLUICE_KEY_FILE", &name)]).await);
        refused(run(&["run", "--key-file", &name, "--", "/bin/cat"], &[]).await);
        refused(run(&["token", "--tenant", "a", "--secret-file", &name], &[]).await);
        refused(run(&["tools", "http://127.0.0.1:1/mcp", "--key-file", &name], &[]).await);
    }
}

#[tokio::test]
async fn a_secret_at_the_wrong_place_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for secret in
        ["slk_abc_THESECRETabcdef", "ghp_THESECRETabcdefgh1", "THESECRETa1b2c3d4e5f6", "sk-THESECRET-THESECRET"]
    {
        for line in [
            format!("{LEAST}{JWT}secret_file = \"{secret}\"\n"),
            format!("{LEAST}{JWT}secret = \"env:{secret}\"\n"),
            format!("{LEAST}{JWT}secret = \"file:{secret}\"\n"),
            format!("{LEAST}{JWT}secret = \"file:/etc/{secret}\"\n"),
            format!("{LEAST}{JWT}jwks_url = \"{secret}\"\n"),
            format!("{LEAST}{}jwks_file = \"{secret}\"\n", JWT.replace("HS256", "RS256")),
            format!("{LEAST}{}pem_file = \"{secret}\"\n", JWT.replace("HS256", "RS256")),
            format!("{LEAST}{}", JWT.replace("HS256", secret)),
            format!("{LEAST}env = [\"TOKEN={secret}\"]\n"),
            format!("{LEAST}env = \"{secret}\"\n"),
            format!("{LEAST}pass_env = [\"{secret}\"]\n"),
            format!("{LEAST}pass_env = [\"TOKEN={secret}\"]\n"),
            format!("{LEAST}[servers.s.env]\n\"TOKEN={secret}\" = \"\"\n"),
            format!("{LEAST}[servers.s.env]\nTOKEN = {secret}\n"),
            format!("{LEAST}[servers.s.env]\n{secret} = [1]\n"),
            format!("{LEAST}[servers.\"{secret} x\"]\ncommand = \"/bin/cat\"\n"),
            format!("{LEAST}cwd = \"{secret}\"\n"),
            format!("{LEAST}isolation = \"{secret}\"\n"),
            format!("{LEAST}{secret} = \"x\"\n"),
            format!("{LEAST}[servers.t]\ncommand = \"{secret}\"\n"),
            format!("{LEAST}[servers.t]\ncommand = \"TOKEN={secret} npx\"\n"),
            format!("{LEAST}[servers.s.limits]\ncall_timeout = \"{secret}\"\nmax_line = \"{secret}\"\n"),
            format!("{LEAST}[servers.s.sandbox]\nread = [\"{secret}\"]\nuser = \"{secret}\"\n"),
            format!("{LEAST}[[auth.keys]]\nprefix = \"{secret}\"\nsha256 = \"{secret}\"\ntenant = \"{secret}\"\n"),
            format!(
                "{LEAST}[http]\nlisten = \"{secret}\"\npublic_url = \"{secret}\"\nallowed_hosts = [\"{secret} \"]\n"
            ),
            format!("default_server = \"{secret}\"\n{LEAST}"),
            format!("state_dir = \"/proc/{secret}\"\n{LEAST}"),
            format!("{LEAST}[log]\nfilter = \"{secret}\"\nformat = \"{secret}\"\n"),
            format!("{secret}\n{LEAST}"),
        ] {
            let (_, said) = check(folder.path(), &line, &[]).await;
            assert!(!said.contains("THESECRET"), "{line}\n{said}");
        }
        let entry = |entry: &str| format!("{{\"mcpServers\": {{\"s\": {{{entry}}}}}}}");
        for text in [
            entry(&format!("\"command\": \"{secret}\"")),
            entry(&format!("\"command\": \"npx\", \"env\": {{\"TOKEN={secret}\": \"\"}}")),
            entry(&format!("\"command\": \"npx\", \"env\": {{\"TOKEN\": \"${{{secret}}}\"}}")),
            entry(&format!("\"command\": \"npx\", \"env\": {{\"TOKEN\": \"${{input:{secret}}}\"}}")),
            entry(&format!("\"command\": \"npx\", \"cwd\": \"{secret}\"")),
            entry(&format!("\"command\": \"npx\", \"env\": [\"TOKEN={secret}\"]")),
        ] {
            let path = folder.path().join("servers.json");
            std::fs::write(&path, &text).unwrap();
            let (_, said) = run(&["check", "--mcp-servers", path.to_str().unwrap()], &[]).await;
            assert!(!said.contains("THESECRET"), "{text}\n{said}");
        }
        for arguments in [
            vec!["token", "--tenant", "a", "--secret-file", secret],
            vec!["run", "--key-file", secret, "--", "/bin/cat"],
            vec!["tools", "http://127.0.0.1:1/mcp", "--key-file", secret],
        ] {
            let (_, said) = run(&arguments, &[]).await;
            assert!(said.contains("cannot be read") && !said.contains("THESECRET"), "{arguments:?} {said}");
        }
        let (_, said) = check(folder.path(), LEAST, &[("SLUICE_KEY", "THESECRET"), ("SLUICE_TENANT", secret)]).await;
        assert!(said.contains("too short") && !said.contains("THESECRET"), "{said}");
    }
}

#[tokio::test]
async fn who_may_change_or_read_what_is_secret_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set(folder.path(), 0o755);
    let (config, secret) = (folder.path().join("sluice.toml"), folder.path().join("secret"));
    std::fs::write(&secret, "a secret of more than thirty-two bytes").unwrap();
    std::fs::write(&config, format!("{LEAST}{JWT}secret_file = {secret:?}\n")).unwrap();
    let said = async || run(&["check", "--config", config.to_str().unwrap()], &[]).await.1;
    set(&config, 0o644);
    set(&secret, 0o600);
    let fine = said().await;
    assert!(fine.contains("is valid") && !fine.contains("not safe"), "{fine}");
    set(&config, 0o666);
    assert!(said().await.contains("sluice.toml:1: not safe as it is: anybody on this machine may change it"));
    set(&config, 0o644);
    set(&secret, 0o604);
    let readable = said().await;
    assert!(
        readable.contains("auth.jwt.secret_file: not safe as it is: anybody on this machine may read it"),
        "{readable}"
    );
    set(&secret, 0o600);
    set(folder.path(), 0o777);
    let replaced = said().await;
    assert!(replaced.contains("may put another in its place"), "{replaced}");
}

#[tokio::test]
async fn a_key_in_the_environment_is_warned_of_where_a_server_could_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    let open = format!("{LEAST}sandbox = \"none\"\n");
    let warning = "SLUICE_KEY: a secret in the environment of whatever has started the gateway";
    assert!(check(folder.path(), &open, &[("SLUICE_KEY", KEY)]).await.1.contains(warning));
    for (config, variable, value) in
        [(LEAST, "SLUICE_KEY", KEY), (&open, "SLUICE_KEY_FILE", key), (LEAST, "SLUICE_KEY_FILE", key)]
    {
        let (code, said) = check(folder.path(), config, &[(variable, value)]).await;
        assert!(code == Some(0) && !said.contains("in the environment of"), "{said}");
    }
    // The same of any secret that is not that server's own.
    let jwt = format!("{open}{JWT}secret = \"env:SIGNING\"\n[servers.s.env]\nOWN = \"env:OWN\"\n");
    let said =
        check(folder.path(), &jwt, &[("SIGNING", "a secret of more than thirty-two bytes"), ("OWN", "x")]).await.1;
    assert!(said.contains("auth.jwt.secret: a secret in the environment"), "{said}");
    assert!(!said.contains("servers.s.env.OWN: a secret"), "{said}");
}

#[tokio::test]
async fn a_key_in_a_file_opens_the_gateway_and_is_in_no_environment() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut process = Command::new(SLUICE)
        .args(["run", "--listen", &free.to_string(), "--key-file"])
        .arg(&key)
        .arg("--")
        .arg(fixture_path())
        .arg("echo")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", async || std::net::TcpStream::connect(free).ok()).await;
    let caller = Caller::new(free);
    assert_eq!(caller.send(Request::post("/mcp", "{}")).await.status, 401);
    assert_eq!(
        caller.with_key(KEY).streamable().await.call("echo", serde_json::json!({"text": "hello"})).await,
        "hello"
    );
    for pid in proc::descendants(process.id()).into_iter().chain([process.id()]) {
        assert!(!proc::environment(pid).iter().any(|variable| variable.contains(KEY)), "process {pid}");
    }
    let (code, said) =
        run(&["tools", &format!("http://{free}/mcp")], &[("SLUICE_KEY_FILE", key.to_str().unwrap())]).await;
    assert!(code == Some(0) && said.contains("echo"), "{said}");
    proc::signal(process.id(), Signal::TERM);
    eventually("it ends", async || process.try_wait().unwrap()).await;
}
