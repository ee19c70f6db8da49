//! What programs and configurations come to.
#![expect(clippy::unwrap_used, reason = "tests")]
use std::os::unix::fs::symlink;

use super::*;

/// A folder with these files in it; a `/` at the end makes a folder.
fn tree(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for file in files {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with('/') { std::fs::create_dir_all(&path).unwrap() } else { std::fs::write(&path, "").unwrap() }
    }
    (folder, root)
}

#[test]
fn own_code_is_the_project_and_never_a_crowded_folder() {
    let (_folder, root) = tree(&[
        "app/package.json",
        "app/dist/index.js",
        "app/node_modules/a/package.json",
        "app/node_modules/a/dist/index.js",
        "venv/pyvenv.cfg",
        "venv/bin/server",
        "home/me/server.py",
        "home/me/tool/bin/run",
    ]);
    let home = root.join("home/me");
    let shared = SharedDirectories::of(vec![home]);
    let code = |file: &str| code_around(&root.join(file), &shared);
    assert_eq!(code("app/dist/index.js"), Some(root.join("app")));
    assert_eq!(code("app/node_modules/a/dist/index.js"), Some(root.join("app/node_modules")));
    assert_eq!(code("venv/bin/server"), Some(root.join("venv")));
    assert_eq!(code("home/me/tool/bin/run"), Some(root.join("home/me/tool")));
    assert_eq!(code("home/me/server.py"), None);
    assert_eq!(code_around(Path::new("/tmp/x"), &shared), None);
    // What everybody installs in is no installation of its own.
    for file in ["/usr/bin/x", "/usr/local/bin/x"] {
        let around = code_around(Path::new(file), &shared);
        assert!(around.is_none_or(|folder| folder.ends_with("bin")), "{file}");
    }
    assert_eq!(code("home/me/.local/bin/uvx"), Some(root.join("home/me/.local/bin")));
}

#[test]
fn a_program_brings_its_links_and_its_interpreter() {
    let (_folder, root) = tree(&["lib/python/bin/python3", "venv/pyvenv.cfg", "venv/bin/server", "node/bin/node", "s"]);
    symlink(root.join("lib/python/bin/python3"), root.join("venv/bin/python")).unwrap();
    std::fs::write(root.join("venv/bin/server"), format!("#!{}\n", root.join("venv/bin/python").display())).unwrap();
    let paths =
        of_program(&root.join("venv/bin/server"), "", &SharedDirectories::default(), &UntrustedPaths::default());
    for path in ["venv", "lib/python", "venv/bin/python", "lib/python/bin/python3"] {
        assert!(paths.contains(&root.join(path)), "{path} is not in {paths:?}");
    }
    std::fs::write(root.join("s"), "#!/usr/bin/env -S node --flag\n").unwrap();
    let paths = of_program(
        &root.join("s"),
        root.join("node/bin").to_str().unwrap(),
        &SharedDirectories::default(),
        &UntrustedPaths::default(),
    );
    assert!(paths.contains(&root.join("node")), "{paths:?}");
    let own = UntrustedPaths::default().with([root.join("venv")]);
    assert_eq!(
        of_program(&root.join("venv/bin/server"), "", &SharedDirectories::default(), &own),
        Vec::<PathBuf>::new()
    );
    let first_line = |line: &str| {
        std::fs::write(root.join("s"), line).unwrap();
        interpreter(&root.join("s"), "/usr/bin", &UntrustedPaths::default())
    };
    assert_eq!(first_line("#!/usr/bin/env -S -u ../../etc/ssh node\n"), None);
}

#[test]
fn arguments_and_variables_name_what_exists() {
    let (_folder, root) = tree(&["data/", "file", "home/me/", "lib/"]);
    let text = |path: &str| root.join(path).to_string_lossy().into_owned();
    let args = [
        text("data"),
        format!("--db={}", text("file")),
        "lib".to_owned(),
        "stdio".to_owned(),
        text("no"),
        "/".to_owned(),
    ];
    assert_eq!(in_arguments(&args, None, &UntrustedPaths::default()), [root.join("data"), root.join("file")]);
    assert_eq!(
        in_arguments(&args, Some(&root), &UntrustedPaths::default()),
        [root.join("data"), root.join("file"), root.join("lib")]
    );
    let env = [("DATA", text("data")), ("HOME", text("home/me")), ("ALL", text("home")), ("PYTHONPATH", text("lib"))];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let shared = SharedDirectories::of(vec![root.join("home/me")]);
    let found = in_variables(&env, &shared, &UntrustedPaths::default());
    assert_eq!(found, (vec![root.join("lib")], vec![root.join("data")]));
}

#[test]
fn what_is_run_is_not_changed() {
    let (_folder, root) = tree(&["server.js", "data.json", "folder.js/", "script"]);
    std::fs::write(root.join("script"), "#!/bin/sh\n").unwrap();
    let is_code = |path: &str| is_code(&root.join(path));
    assert!(is_code("server.js") && is_code("script") && is_code("/bin/sh") && is_code("/etc"));
    let script_in = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        script_in(&args, Some(&root), &UntrustedPaths::default())
    };
    assert_eq!(script_in(&["--hook=script", "data.json", "run", "server.js", "script"]), Some(root.join("server.js")));
    assert_eq!(script_in(&["--config=server.js", "data.json", "nothing"]), None);
    assert!(!is_code("data.json") && !is_code("folder.js") && !is_code("nothing") && !is_code("/srv"));
}
