# Login over a plain network, to the target at $HOST.
network "$ADDRESS"
start_iscsid
story "$HOST:3260"
