#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/

rm_pash_fifos() {
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ python3.9 aws/s3-get-object.py "text/in.txt" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" -o "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/r_split "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" 1000000 "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib send*a15d79c4-dfb7-5299-a230-1720a8938cab*0*1*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2 send*1ccb64dc-049a-56fe-9f7d-037361002ae3*0*1*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3 send*2ce8cfca-4165-54c0-927b-5ad98baf9777*0*1*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
