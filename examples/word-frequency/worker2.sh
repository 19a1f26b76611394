#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/

rm_pash_fifos() {
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" -o "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ <"/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" runtime/r_wrap bash -c 'tr -cs A-Za-z "\n" | grep . | tr A-Z a-z' >"/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*1ccb64dc-049a-56fe-9f7d-037361002ae3*1*0*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2 send*c1d935b8-d9eb-504a-a821-a49b99253192*0*1*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
