#!/bin/bash
export PATH=$PATH:runtime
export LD_LIBRARY_PATH=$LD_LIBRARY_PATH:runtime/lib
mkdir -p /tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/

rm_pash_fifos() {
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" ; }
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ sort -m "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" >"/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*7da93b54-fa62-595f-b049-1da2a69de617*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 recv*a84a86fa-2f9b-5674-a686-a1f6fe500097*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 send*ab83709f-fe9e-5178-9cdf-72f7858a0da5*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
