//! Prints the nodes that are online.

use std::{env, error::Error, fs, pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use nodes::{
    Gateway, explain,
    proto::{InstanceInformationStringFilter, StreamInstanceInformationRequest},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("SSM_GATEWAY_ADDRESS").unwrap_or_else(|_| String::from("127.0.0.1:50051"));
    let ca = env::var("SSM_GATEWAY_TLS_CA").ok().map(fs::read).transpose()?;
    let token = env::var("SSM_GATEWAY_TOKEN_FILE").ok().map(fs::read_to_string).transpose()?;
    let gateway = Gateway::new(&address, ca.as_deref(), token.as_deref().map(str::trim))?;

    let online =
        InstanceInformationStringFilter { key: Some(String::from("PingStatus")), values: vec![String::from("Online")] };
    let request = StreamInstanceInformationRequest { filters: vec![online], ..Default::default() };
    let mut pages = pin!(gateway.stream(Duration::from_mins(1), request));
    while let Some(page) = pages.try_next().await.map_err(|status| format!("{status} {:?}", explain(&status)))? {
        if let Some(unreachable) = page.unreachable {
            eprintln!("{} is unreachable: {}", page.target, unreachable.message);
        }
        for node in page.instance_information_list {
            println!("{} {}", node.instance_id.unwrap_or_default(), node.platform_name.unwrap_or_default());
        }
    }
    Ok(())
}
