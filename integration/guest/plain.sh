# Login over a plain network: $ADDRESS is ours, $PORTAL the target's.
network "$ADDRESS"
start_iscsid
login "$PORTAL"
file_system_story "$disk"
logout "$PORTAL"
