#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# two-guests.t - two guests at once, two users in one guest, guest and host: none sees or touches what is another's
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $conf = slurp('vfun.conf') . "\n[vm one]\nfunctions = factorial\n[vm two]\nfunctions = factorial sha256\n";
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub instances { return @{ decode_json(vfun('status', '--json')->{out})->{instances} }; }
sub active { return grep { $_->{state} eq 'active' } instances(); }

# A busybox's ls, cat and the like look around in the second guest while the first holds its instance.
my @tools = ('--add', guest_client() . ':/bin/client', '--add', '/bin/busybox:/bin/busybox');
my $one = $d->guest('tree', ['client', 'hold', 'factorial', 'dax'], '--vm', 'one', '--path', 'dax', @tools);
ok(wait_until(90, sub { active() == 1 }), 'guest one holds an instance');
my ($theirs) = active();
is($theirs->{client}, 'one', "which is one's");

my $host = start([client(), 'hold', 'factorial', 'host']);
ok(wait_until(10, sub { active() == 2 }), 'a program on the host holds another');
my ($hosts) = grep { $_->{client} ne 'one' } active();
is(scalar(() = $d->log =~ /QEMU connects/g), 1, 'one QEMU is connected');

my $f = "factorial.$theirs->{instance}";
spew(tmp('script'), <<"END");
echo LIST
busybox ls -1a /run/vfun
echo STATUS
vfun status
echo FOREIGN
! busybox ls /run/vfun/$f
! busybox cat /run/vfun/$f/datain
!3 vfun release $theirs->{instance}
!3 vfun release $hosts->{instance}
!3 vfun call nosuch 5
echo ROOT
! busybox mkdir /run/vfun/x
! busybox touch /run/vfun/x
! busybox ln -s /etc /run/vfun/x
! busybox mknod /run/vfun/x c 1 3
! busybox rm /run/vfun/control
! busybox mv /run/vfun/control /run/vfun/y
! busybox chmod 777 /run/vfun/control
! busybox cat /run/vfun/../vfun/../../proc/nosuch
echo USERS
as 1000:1000 client hold factorial copy &
sleep 2
busybox ls -ln /run/vfun
as 1001:1001 busybox ls -1 /run/vfun
echo STATUS1001
as 1001:1001 vfun status
echo STATUS1000
as 1000:1000 vfun status
! as 1001:1001 busybox sh -c cat</run/vfun/factorial.*/datain
echo END
END
my $two = finish($d->guest('own', undef, '--vm', 'two', '--path', 'copy', '--script', tmp('script'), @tools), 120);
is($two->{status}, 0, 'guest two looked around') or diag($two->{out}, $two->{err}, $d->log);
my %part = $two->{out} =~ /^([A-Z0-9]+)\n(.*?)(?=^[A-Z0-9]+\n|\z)/msg;
is($part{LIST}, ".\n..\ncontrol\n", 'guest two sees control and nothing else');
like($part{STATUS}, qr/^vfund.* 0 instances; you are two$/m, 'no instance, and it is two');
unlike($part{STATUS}, qr/factorial|pid/, "none of the others', nor pids of the host");
like($part{USERS}, qr/^dr-x------ .* 1000 +1000 .* factorial\.\d+$/m, "a user's folder is his own");
is(scalar(() = $part{USERS} =~ /^factorial/mg), 0, 'another user does not see it');
like($part{STATUS1001}, qr/ 0 instances; you are two$/m, 'nor its instance');
like($part{STATUS1000}, qr/ 1 instance; you are two$/m, 'its owner does');
is(scalar(() = active()), 2, 'guest one and the host still hold theirs');

# A second QEMU at one's socket
my $second = finish($d->guest('own', ['vfun', '--version'], '--vm', 'one', '--path', 'copy', '--timeout', 20), 60);
is($second->{status}, 3, 'a second QEMU for the same VM gets no share') or diag($second->{err});
like($d->log, qr/VM one: a second QEMU connects.*turned away/, 'and is turned away');
is(scalar(() = active()), 2, 'which the first does not notice');

kill 'KILL', $one->{pid}, $host->{pid};
finish($one, 10);
finish($host, 10);
ok(wait_until(10, sub { !instances() }), 'both gone: nothing is left');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
