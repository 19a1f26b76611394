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
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo7" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo8" ; }
{ rm -f "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo9" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo7" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo8" ; }
{ mkfifo "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo9" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2" -o "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4" -o "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6" -o "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo7" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/r_merge "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo3" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo5" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo7" >"/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo8" & }
pids_to_kill="${!} ${pids_to_kill}"
{ sort <"/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo8" | uniq -c | sort -k1,1rn -k2 >"/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo9" & }
pids_to_kill="${!} ${pids_to_kill}"
{ python3.9 aws/s3-put-object.py "out/word frequencies.txt" "/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo9" $1 & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*ac77f8af-ace8-5035-ae9f-d132e1c0410b*1*0*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo2 recv*c1d935b8-d9eb-504a-a821-a49b99253192*1*0*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo4 recv*8b4ccb65-eb4b-52c7-a210-103ebd7c69c3*1*0*/tmp/pash_wfreq/1c98a2f990facd6bec834620cdab09c1/#fifo6 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
