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
{ /opt/pashlib recv*a15d79c4-dfb7-5299-a230-1720a8938cab*1*0*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2 send*ac77f8af-ace8-5035-ae9f-d132e1c0410b*0*1*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
