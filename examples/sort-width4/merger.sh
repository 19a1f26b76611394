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
{ python3.9 aws/s3-put-object.py "oneliners/outputs/sort.sh:1M.txt:4:leashstdout.txt" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" $1 & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib recv*ab83709f-fe9e-5178-9cdf-72f7858a0da5*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 recv*322a5417-25db-5de9-ac6d-e8d312ddaddd*1*0*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
