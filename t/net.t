#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# net.t - path net: right answers on the host and from a guest; who proves nothing, sends rubbish, is slow or asks too
# much gets nothing and holds up nobody; what a connection held goes with it, whoever ends it
use strict;
use warnings;
use lib 't/lib';
use Digest::SHA qw(hmac_sha256 sha256_hex);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);
use Vfun;

requires('qemu', 'kernel', 'tree');
$SIG{PIPE} = 'IGNORE';    # we are cut off often enough

my $factorial_51 = '1551118753287382280224243016469303211063259720016986112000000000000';
my $probe = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!;
my $port = $probe->sockport;
close $probe;
my %key = map { $_ => sha256_hex("$_ of this test $$ " . time) } qw(lab small other);

sub key_file {
	my ($name, $text, $mode) = @_;
	my $path = spew(tmp("$name.key"), $text);
	chmod $mode // 0600, $path;
	return $path;
}
my $lab = key_file('lab', "lab $key{lab}\n");
my $small = key_file('small', "small $key{small}\n");
my $other = key_file('other', "lab $key{other}\n");

sub conf {
	my ($more) = @_;
	return slurp('vfun.conf') . "\n[net]\nlisten = 127.0.0.1:$port\n$more" . <<"END";
[net-client lab]
key-file = $lab
functions = factorial sha256 zstd
[net-client small]
key-file = $small
functions = factorial
instances = 2
connections = 3
END
}

# vfun.conf
for my $case (
	["[net]\nlisten = nowhere\n", qr/listen: 'nowhere' is not ADDRESS:PORT/],
	["[net]\nlisten = 127.0.0.1:0\n", qr/is not ADDRESS:PORT/],
	["[net-client a]\nfunctions = factorial\n", qr/\[net-client a\]: it needs a key-file/],
	["[net-client demo]\nkey-file = $lab\n", qr/\[net-client demo\]: not a name/],
	["[net-client b]\nkey-file = b.key\n", qr/not a file's name from \/ on/],
	["[net-client b]\nkey-file = $lab\n", qr/\[net-client b\]: key-file \S+: holds the key of another name/],
	["[net-client b]\nkey-file = " . key_file('open', "b $key{lab}\n", 0640) . "\n", qr/may be read or written by others/],
	["[net-client b]\nkey-file = " . key_file('bad', "b $key{lab}0\n") . "\n", qr/does not hold a key/],
	["[net-client b]\nkey-file = " . key_file('short', 'b 0123') . "\n", qr/does not hold a key/],
	["[net-client b]\nkey-file = " . tmp('nosuch') . "\n", qr/No such file/])
{
	my ($text, $reason) = @$case;
	my $r = vfun('daemon', '-n', '-c', spew(tmp('x.conf'), conf('') . $text));
	is($r->{status}, 2, 'refused: ' . $text =~ s/\n.*//sr);
	like($r->{err}, qr/x\.conf:\d+: .*$reason/, 'line and reason') or diag($r->{err});
}
is(vfun('daemon', '-n', '-c', spew(tmp('x.conf'), conf('')))->{status}, 0, 'a good one');

my $d = Vfun->new(conf => conf("idle = 3\nconnections = 40\n"));
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my @server = ('--server', "127.0.0.1:$port", '--key-file', $lab);
sub status { return vfun('status', '--run', $d->{run})->{out}; }
sub nobodys { return wait_until(10, sub { status() !~ /\b(?:lab|small)\b/ }); }

# Right answers
spew(tmp('data'), join '', map { pack 'N', $_ * 2654435761 & 0xffffffff } 1 .. 800_000);
my $r = vfun('call', '-v', @server, 'factorial', 51);
is($r->{out}, "$factorial_51\n", 'factorial 51') or diag($r->{err}, $d->log);
like($r->{err}, qr/path net/, 'by path net');
is(vfun('call', @server, 'sha256', tmp('data'))->{out}, sha256_hex(slurp(tmp('data'))) . "\n", 'sha256 of 3 MB');
is(vfun('call', @server, 'zstd', '-o', tmp('z'), tmp('data'))->{status}, 0, 'zstd of 3 MB');
ok(run(['zstd', '-q', '-d', '-c', tmp('z')])->{out} eq slurp(tmp('data')), 'is a valid frame of them');
my %env = (VFUN_RUN_DIR => tmp('nosuch'), VFUN_SERVER => "127.0.0.1:$port", VFUN_KEY_FILE => $lab);
is(run([$VFUN, 'call', 'factorial', 51], env => \%env)->{out}, "$factorial_51\n", 'a server named in the environment, where nothing is local');
is(decode_json(run([$VFUN, 'call', '--json', 'factorial', 5], env => { %env, VFUN_RUN_DIR => $d->{run} })->{out})->{path},
	'host', 'where something is, that is used');
is(decode_json(run([$VFUN, 'call', '--json', '--path', 'net', 'factorial', 5], env => { %env, VFUN_RUN_DIR => $d->{run} })->{out})->{path},
	'net', 'unless it is asked for');
like(run([$VFUN, 'list'], env => \%env)->{out}, qr/^factorial .*^sha256 .*^zstd /ms, 'vfun list');
sub test_client { return run([client(), @_], env => \%env, timeout => 60); }
is(test_client('setget', 'net')->{out}, "ok path net\n", 'set, get, rst');
like(test_client('insane', 'net')->{out}, qr/^ok path net: (?:cut-off|gone)\n/, 'slots that break the protocol');
for my $slots (1, 16, 256) {
	like(test_client('inflight', 'net', $slots, 2000)->{out}, qr/^ok \d+ calls, $slots in flight, path net\n/, "$slots in flight");
}
my @jobs = map { start([client(), 'inflight', 'net', 16, 5000], env => \%env) } 1 .. 6;
is(finish($_, 60)->{status}, 0, 'one of six connections at once') for @jobs;

# Exit statuses
for my $case (
	[3, qr/doesn't give fibonacci to this client.*denied/, @server, 'fibonacci', 5],
	[3, qr/no function 'nosuch'/, @server, 'nosuch', 5],
	[3, qr/nobody's here.*denied/, '--server', "127.0.0.1:$port", '--key-file', $other, 'factorial', 5],
	[8, qr/needs a key/, '--server', "127.0.0.1:$port", 'factorial', 5],
	[8, qr/chmod 600/, '--server', "127.0.0.1:$port", '--key-file', tmp('open.key'), 'factorial', 5],
	[4, qr/needs a server/, '--path', 'net', 'factorial', 5],
	[4, qr/neither ADDRESS:PORT/, '--server', 'localhost:1', '--key-file', $lab, 'factorial', 5],
	[4, qr/no vfund at .*refused/, '--server', '127.0.0.1:1', '--key-file', $lab, 'factorial', 5],
	[5, qr/no answer within/, @server, '--timeout', '0.3', 'factorial', 51, '18446744073709551615'])
{
	my ($status, $text, @args) = @$case;
	$r = vfun('call', @args);
	is($r->{status}, $status, "$status: vfun call @args[0 .. 1] ... $args[-2]") or diag($r->{err});
	like($r->{err}, $text, 'says why');
}
ok(nobodys(), 'nothing is left of all that') or diag(status());

# By hand
sub connect_raw {
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) || die "connect: $!";
}

# So many bytes, or what comes before the end, within so many seconds.
sub bytes {
	my ($s, $n, $seconds) = @_;
	my $end = time + ($seconds // 10);
	my $got = '';
	while (length $got < $n && IO::Select->new($s)->can_read($end - time > 0 ? $end - time : 0)) {
		sysread($s, $got, $n - length $got, length $got) or last;
	}
	return $got;
}

sub closed {
	my ($s, $seconds) = @_;
	my $end = time + ($seconds // 5);
	while (time < $end && IO::Select->new($s)->can_read($end - time)) {
		return 1 if !sysread($s, my $more, 65536);
	}
	return 0;
}

sub frame {
	my ($type, $body, $off, $len, %o) = @_;
	return pack('L<S<S<Q<Q<', $o{magic} // 0x74656e76, $type, $o{body} // length $body, $off // 0, $len // 0) . $body;
}

my $version;    # the server's
sub proof {
	my ($side, $key, $server_nonce, $client_nonce, $name) = @_;
	return hmac_sha256(pack('a16 a32 S< S< x4 a32 a32', "vfun-net $side", $name, $version, 0x0100, $server_nonce, $client_nonce),
		pack('H*', $key));
}

# Returns the socket, the frame that was sent, and the answer.
sub authenticate {
	my ($name, $key, $pause) = @_;
	my $s = connect_raw();
	my $hello = bytes($s, 24 + 40);
	sleep $pause if $pause;
	my $nonce = substr sha256_hex(rand() . time), 0, 32;
	$version = unpack 'x24 S<', $hello;
	my $auth = frame(2, pack('a32 S< x6 a32 a32', $name, 0x0100, $nonce, proof('client', $key, substr($hello, 32), $nonce, $name)));
	print {$s} $auth;
	my $head = bytes($s, 24);
	my ($type, $body) = unpack 'x4 S< S<', $head;
	return ($s, $auth, $type // 0, bytes($s, $body // 0), substr($hello, 32), $nonce);
}

sub msg {
	my ($type, $body) = @_;
	return frame(4, pack('L< S< S< L< S< S< a128 a112', 0x6e756676, $type, 0x0100, 1, 0, 0, $body, ''));
}

sub reply {
	my ($s) = @_;
	my ($reason, $body) = unpack 'x24 x12 S< x2 a128', bytes($s, 24 + 256);
	return ($reason // -1, $body);
}

# An instance of factorial with 4 slots and 4096 bytes each way.
sub activate {
	my ($s) = @_;
	print {$s} msg(1, pack('a32 S< S< C C S< Q< Q<', 'factorial', 0x0100, 0x0100, 0, 0, 4, 4096, 4096));
	my ($reason, $grant) = reply($s);
	return $reason if $reason;
	print {$s} msg(2, substr $grant, 0, 8);
	return (reply($s))[0];
}

sub slot {
	my ($seq, @args) = @_;
	return pack('L< C C S< a56', $seq, 2, 0, 8 * @args, pack('Q<*', @args));
}

my ($s, $auth, $type, $body, $server_nonce, $nonce) = authenticate('lab', $key{lab});
is($type, 3, 'a proof is welcome');
ok($body eq proof('server', $key{lab}, $server_nonce, $nonce, 'lab'), 'and the server proves itself too');
is(activate($s), 0, 'an instance by hand');
print {$s} frame(5, slot(1, 5)), frame(5, slot(2, 6)), frame(5, slot(3, 3));
is(join(' ', map { unpack 'x24 x8 Q<', bytes($s, 24 + 64) } 1 .. 3), '120 720 6', 'three calls');
like(status(), qr/ lab .*factorial/, 'status knows whose it is');
close $s;
ok(nobodys(), 'it is released when the connection is closed');

my $again = connect_raw();
bytes($again, 64);
print {$again} $auth;
like(bytes($again, 280), qr/nobody's here/, 'a proof that was heard is no proof again');
my $mirror = connect_raw();
my $hello = bytes($mirror, 64);
print {$mirror} frame(2, pack('a32 S< x6 a32 a32', 'lab', 0x0100, substr($hello, 32), proof('server', $key{lab}, substr($hello, 32), substr($hello, 32), 'lab')));
like(bytes($mirror, 280), qr/nobody's here/, "the server's own proof is not the client's");
for my $case (['lab', $key{other}], ['nobody', $key{lab}], ['nobody', '0' x 64], ['small', $key{lab}]) {
	my ($conn, undef, $got, $text) = authenticate(@$case);
	is($got, 4, "refused: $case->[0] with another key");
	like($text, qr/nobody's here/, 'in the same words');
	ok(closed($conn), 'and is cut off');
}
ok(($r = vfun('call', '--timeout', 3, '--server', "127.0.0.1:$port", '--key-file', $lab, 'factorial', 3))->{out} eq "6\n", 'still there');

# A server that doesn't know the key, and one that isn't any
my $liar = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!;
for my $case ([frame(1, pack('S< x6 a32', 0x0100, 'n' x 32)), frame(3, 'p' x 32), 3, qr/not the one it should be/],
	["SSH-2.0-whatever\r\n" x 5, '', 7, qr/doesn't speak vfun/]) {
	my ($first, $second, $status, $text) = @$case;
	my $job = start([$VFUN, 'call', '--path', 'net', '--timeout', 5, '--server', '127.0.0.1:' . $liar->sockport, '--key-file', $lab, 'factorial', 3]);
	for (1 .. 2) {
		IO::Select->new($liar)->can_read(10) or last;
		my $conn = $liar->accept or last;
		print {$conn} $first;
		bytes($conn, 24 + 104) if $second;
		print {$conn} $second;
		closed($conn);
	}
	$r = finish($job, 20);
	is($r->{status}, $status, "a server that lies: $status") or diag($r->{err});
	like($r->{err}, $text, 'is found out');
}

# Nonsense, before and after: each costs its own connection
for my $case (
	['no frame', 0, 'GET / HTTP/1.0' . "\r\n" x 40],
	['another magic', 0, frame(2, 'x' x 104, 0, 0, magic => 1)],
	['a call before the proof', 0, frame(5, slot(1, 5))],
	['a control message before the proof', 0, msg(6, '')],
	['bulk data before the proof', 0, frame(2, 'x' x 104, 0, 1 << 40)],
	['an unknown type', 1, frame(99, '')],
	['a body of another size', 1, frame(5, 'x' x 32)],
	['a body that is said to be huge', 1, frame(4, '', 0, 0, body => 65535)],
	["a server's frame", 1, frame(6, 'x' x 64)],
	['bulk data with a control message', 1, frame(4, 'x' x 256, 0, 5)],
	['a second proof', 1, $auth],
	['bulk data beyond the arena', 2, frame(5, slot(1, 5), 4096, 1)],
	['bulk data longer than the arena', 2, frame(5, slot(1, 5), 0, 4097)],
	['bulk data that wraps around', 2, frame(5, slot(1, 5), ~0, 2)],
	['a position too far', 2, frame(5, slot(2, 5))],
	['the same position twice', 2, frame(5, slot(1, 5)) x 2],
	['more calls than slots', 2, join '', map { frame(5, slot($_, 51, 1 << 40)) } 1 .. 5],
	['a call without an instance', 1, frame(5, slot(1, 5))])
{
	my ($what, $stage, $sent) = @$case;
	my ($conn) = $stage ? authenticate('lab', $key{lab}) : connect_raw();
	activate($conn) == 0 or BAIL_OUT('no instance') if $stage == 2;
	bytes($conn, 64) if !$stage;
	print {$conn} $sent;
	$conn->flush;
	ok(closed($conn), "cut off: $what");
}
ok(nobodys(), 'and what they held is released') or diag(status());
($s) = authenticate('lab', $key{lab});
print {$s} msg(2, pack 'Q<', 12345);
is((reply($s))[0], 8, "a grant that isn't one's own: no-grant");
print {$s} msg(999, '');
is((reply($s))[0], 1, 'an unknown control message: malformed');
is(activate($s), 0, 'and the connection goes on');
print {$s} msg(1, pack('a32 S< S< C C S< Q< Q<', 'factorial', 0x0100, 0x0100, 0, 0, 4, 0, 0));
print {$s} msg(2, substr +(reply($s))[1], 0, 8);
is((reply($s))[0], 6, 'a second instance on one connection: no-resource');

# Slow ones: they are waited for, but not for ever, and nobody waits for them
my @slow = map { connect_raw() } 1 .. 60;
my ($reader) = authenticate('lab', $key{lab});
activate($reader);
my ($half) = authenticate('lab', $key{lab});
activate($half);
print {$half} frame(5, slot(1, 5), 0, 4096), 'x' x 100;
my $start = time;
is(vfun('call', '--timeout', 3, @server, 'factorial', 51)->{out}, "$factorial_51\n", 'a call beside 60 that say nothing and one that stops halfway');
is(scalar(grep { closed($_, 0.2) } @slow[0 .. 20]), 21, 'of those who prove nothing the oldest went for the newest');
ok(closed($slow[-1], 10), 'the newest a few seconds later');

# One that sends its proof byte by byte: five seconds in all, not for each.
my $dripping = connect_raw();
bytes($dripping, 64);
my $drips = 0;
for (1 .. 100) {
	syswrite($dripping, substr $auth, $drips, 1) or last;
	$drips++;
	last if IO::Select->new($dripping)->can_read(0.1);
}
like(bytes($dripping, 280), qr/no proof came within 5 seconds/, 'a proof that comes slowly is cut off');
cmp_ok($drips, '<', length $auth, 'before it is complete');

# A handshake from one address, beside a flood of connections from another.
my $flood = fork // die $!;
if (!$flood) {
	my @open;
	while (1) {
		push @open, IO::Socket::INET->new(LocalAddr => '127.0.0.2', PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 1) // ();
		splice @open, 0, 20 if @open > 60;
	}
}
my $welcome = 0;
for (1 .. 5) {
	my ($calm, undef, $kind) = authenticate('lab', $key{lab}, 0.3);
	$welcome += $kind == 3;
	close $calm;
}
kill 'KILL', $flood;
is($welcome, 5, 'handshakes that take their time are done beside a flood of connections without a key');

# Answers that nobody reads: first the sockets' buffers, then this connection's is full, then nothing is taken any more.
my $seq = 0;
$reader->blocking(0);
for (1 .. 20000) {
	my $f = frame(5, slot(++$seq, 1));
	my $n = syswrite($reader, $f) // 0;
	last if $n != length $f;
	sleep 0.0005 if $seq % 4 == 0;
}
is(vfun('call', '--timeout', 3, @server, 'factorial', 51)->{out}, "$factorial_51\n", 'beside one that reads no answer');
close $_ for $reader, @slow;
ok(closed($half, 15), 'who stops within a frame is cut off') or diag($d->log);
my $held = start([client(), 'hold', 'factorial', 'net'], env => \%env);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok/ }), 'an instance is held');
ok(wait_until(10, sub { status() !~ /\blab\b/ }), 'it is taken back after 3 idle seconds');
like($d->log, qr/nothing was asked for 3 seconds/, 'says the log');
kill 'KILL', $held->{pid};

# Limits
my @three = map { (authenticate('small', $key{small}))[0] } 1 .. 3;
my (undef, undef, $fourth, $text) = authenticate('small', $key{small});
like($text, qr/as many connections/, 'one connection more than this client may have');
is(join(' ', map { activate($_) } @three), '0 0 6', 'one instance more: no-resource');
close $_ for @three;
ok(nobodys(), 'all are released');
is(vfun('call', '--server', "127.0.0.1:$port", '--key-file', $small, 'factorial', 5)->{out}, "120\n", 'then there is room again');

# Somebody dies
$held = start([client(), 'hold', 'factorial', 'net'], env => \%env);
wait_until(10, sub { slurp($held->{out}) =~ /^ok/ });
kill 'KILL', $held->{pid};
ok(nobodys(), 'the client: released');
my $busy = sub {
	my $job = start([$VFUN, 'call', @server, 'factorial', 51, '18446744073709551615']);
	ok(wait_until(10, sub { status() =~ / lab .* active / }), 'a call without end');
	return $job;
};
my $process = sub { my ($name) = @_; return (grep { $_->[1] eq $name } descendants($d->{job}{pid}))[0][0]; };
for my $name ('vfun-service', 'vfun-net') {
	my $job = $busy->();
	kill 'KILL', $process->($name);
	$r = finish($job, 10);
	is($r->{status}, 7, "$name: the call is lost") or diag($r->{err});
	ok(nobodys(), 'and released');
	is(vfun('call', @server, 'factorial', 51)->{out}, "$factorial_51\n", 'the next one is not');
}
my $load = start([client(), 'load', 3, 'net'], env => \%env);
for (1 .. 3) {
	sleep 0.7;
	kill 'KILL', $process->('vfun-engine');
}
$r = finish($load, 30);
is($r->{status}, 0, "the engine, three times: $r->{out}") or diag($r->{err}, $d->log);
ok(nobodys(), 'nothing is left');

# From a guest: with a network and nothing else; and beside its share
spew(tmp('script'), <<'END');
vfun call -v --path net factorial 51
vfun call sha256 --path net /data
vfun call --json factorial 5
!3 vfun call --path net fibonacci 5
client inflight net 16 200
END
for my $case (['own', 'none', 'net'], ['tree', 'copy', 'copy']) {
	my ($which, $path, $auto) = @$case;
	$r = finish($d->guest($which, undef, '--path', $path, '--net', '--script', tmp('script'), '--add', tmp('data'),
		'--add', guest_client() . ':/bin/client', '--add', "$lab:/key", '--env', "VFUN_SERVER=10.0.2.2:$port", '--env', 'VFUN_KEY_FILE=/key'), 120);
	is($r->{status}, 0, "from a guest, $which QEMU, share: $path") or diag($r->{err}, $r->{out}, $d->log);
	my $sum = sha256_hex(slurp(tmp('data')));
	like($r->{out}, qr/^$factorial_51\n$sum\n.*"path":"$auto".*\nok 208 calls, 16 in flight, path net\n/, 'all results');
}

($s) = authenticate('lab', $key{lab});
is(activate($s), 0, 'one is held to the end');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port), 'nor the port');

# An ordinary user's, and answers that come in another order
SKIP: {
	skip 'is one already', 5 if $> != 0;
	chown 65534, 65534, $lab, $small;
	chmod 0777, tmp();
	my $u = Vfun->new(conf => conf('') . "[function factorial]\nworkers = 2\n", as => [65534, 65534]);
	ok($u->up, 'user mode') or diag($u->log);
	is(run([$VFUN, 'call', @server, 'factorial', 5], as => [65534, 65534])->{out}, "120\n", 'a call');
	chown 0, 0, $lab;
	like(test_client('inflight', 'net', 16, 5000)->{out}, qr/^ok \d+ calls, 16 in flight/, 'two workers');
	like(test_client('batch', 'net', 16, 3000)->{out}, qr/^ok 3000 calls, 16 slots, 2 workers, path net/, 'in batches');
	is_deeply([$u->down], [], 'leaves nothing');
}
done_testing();
