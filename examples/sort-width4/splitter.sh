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
{ rm -f "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo7" ; }
:
}
mkfifo_pash_fifos() {
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" ; }
{ mkfifo "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo7" ; }
:
}
rm_pash_fifos
mkfifo_pash_fifos
pids_to_kill=""
{ python3.9 aws/s3-get-object.py "oneliners/inputs/1M.txt" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/dgsh-tee -i "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo6" -o "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo7" -I -b 5M & }
pids_to_kill="${!} ${pids_to_kill}"
{ runtime/r_split -r "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo7" 1000000 "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4" "/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5" & }
pids_to_kill="${!} ${pids_to_kill}"
{ /opt/pashlib send*aeb29de5-9d94-56f1-b53b-4b142598680c*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo2 send*0dbc6aac-a61d-5ddc-a457-588910a31b92*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo3 send*68265a78-eae8-5ce4-b44a-52be8d51a57d*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo4 send*20238f32-ec93-58b4-906c-30863376a24c*0*1*/tmp/pash_sortw4/e9e77469d7233c14247c17fba72aad4d/#fifo5 & }
pids_to_kill="${!} ${pids_to_kill}"
source runtime/wait_for_output_and_sigpipe_rest.sh ${pids_to_kill}
rm_pash_fifos
( exit "${internal_exec_status}" )
