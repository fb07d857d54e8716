// Starts a server for the examples in the documentation: alone, in this process, on its own port.
// It ends with the process.
fn example_server() -> String {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let server = free.expect("a free port").to_string();
    let config = folder.join("postern.toml");
    postern::settings::Settings::init(&config, std::slice::from_ref(&server), false).unwrap();
    let data = Some(folder.join("data"));
    let options = postern::options::Serve { config, id: 1, data, stop_with_stdin: false };
    std::thread::spawn(move || postern::commands::serve::run(&options));
    server
}
