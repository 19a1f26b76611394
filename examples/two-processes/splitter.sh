#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/

rm_pash_fifos() {
{ rm -f "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" ; }
{ rm -f "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" ; }
{ mkfifo "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ python3.9 aws/s3-get-object.py "text/in.txt" "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo2" -o "/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ : split & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib send*a154d1df-f782-504c-b84d-a80eed8896a8*0*1*/tmp/pash_twoproc/4332970fcd48ec7776080fde959834ae/#fifo3 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
