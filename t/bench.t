#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# bench.t - each benchmark measures what it was asked to, on the host and in a guest, and its figures add up
#
# No time is judged: only that there are figures, that each ratio is the quotient of the two beside it, that text, JSON
# and CSV say the same, and that nothing is left behind. That answers are right the benchmarks see themselves.
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use List::Util qw(sum);
use Test::More;
use Vfun;

requires('qemu', 'tree');

$VFUN = "$BUILD/guest/vfun" if $SANITIZE;    # it starts guests with itself, where there is no address sanitizer
my @tree = ('--qemu', "$TREE/qemu", '--kernel', "$TREE/kernel/vmlinuz");
my $number = qr/^-?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/;
$ENV{TMPDIR} = tmp('bench');
mkdir $ENV{TMPDIR};
chmod 0711, $ENV{TMPDIR};

sub nothing_left {
	my ($what, @before) = @_;
	my %before = map { $_->[0] => 1 } @before;
	my $new = sub { grep { !$before{ $_->[0] } } descendants() };
	wait_until(5, sub { !$new->() });
	is_deeply([$new->()], [], "$what: no process is left");
	is_deeply([glob "$ENV{TMPDIR}/*"], [], 'and no file');
	return;
}

# Run with --json and check what all have; returns the rows, and everything.
sub bench {
	my ($name, @args) = @_;
	my @before = descendants();
	my $r = run([$VFUN, 'bench', $name, '--json', @args], timeout => 300);
	is($r->{status}, 0, "bench $name @args") or diag($r->{err});
	my $j = eval { decode_json($r->{out}) } // { rows => [] };
	is($j->{benchmark}, $name, 'one JSON object');
	ok($j->{machine}{kernel} && $j->{machine}{cores_usable} > 0, 'which says on what machine');
	nothing_left("bench $name", @before);
	return ($j->{rows}, $j);
}

sub pick {
	my ($rows, %want) = @_;
	return grep { my $row = $_; !grep { ($row->{$_} // '') ne $want{$_} } keys %want } @$rows;
}

# Quotients of numbers that were rounded to nine digits.
sub quotient {
	my ($ratio, $x, $y) = @_;
	return $y > 0 && abs($ratio / ($x / $y) - 1) < 1e-6;
}

# latency, by a vfund of its own, in a guest with DAX
my ($rows, $j) = bench('latency', '--blocks', 8, @tree);
is_deeply($j->{left_out}, [], 'nothing was left out');
for my $who ('', 'guest: ') {
	is(scalar(grep { /^${who}fewer than 1000 round trips / } @{ $j->{warnings} }), 1, "${who}a warning");
}
like($j->{machine}{accelerator}, qr/^(?:KVM|TCG)$/, "the guest's accelerator");
like($j->{machine}{qemu}, qr/^QEMU \d+\./, 'its QEMU');
like($j->{machine}{guest_kernel}, qr/^\d+\.\d+/, 'its kernel');
for my $case (['host', 'host'], ['guest', 'dax'], ['guest', 'ivshmem']) {
	my ($where, $path) = @$case;
	my ($raw) = pick($rows, where => $where, path => $path, what => 'raw ping-pong');
	my ($null) = pick($rows, where => $where, path => $path, what => 'null call');
	ok($raw && $null, "$where: raw ping-pong and null call by $path") or next;
	is($null->{round_trips}, 50 * 8 * 16, 'as many as were asked for');
	is($null->{limit}, $raw->{what}, 'the one is the limit of the other');
	ok(quotient($null->{ratio}, $null->{median_ns}, $raw->{median_ns}), 'the ratio is the quotient');
	is(sum(map { $_->[1] } @{ $null->{histogram_ns} }), 50 * 8, 'the histogram has every single call');
}
for my $row (@$rows) {
	my @v = map { $row->{$_} } qw(p99_ns p999_ns max_ns);
	ok((!grep { !defined || !/$number/ } @v) && $v[0] <= $v[1] && $v[1] <= $v[2], "$row->{where} $row->{path} $row->{what}");
}
for my $where (qw(host guest)) {
	my ($echo) = pick($rows, where => $where, what => 'TCP echo');
	my ($net) = pick($rows, where => $where, path => 'net', what => 'null call');
	ok($net && $echo && quotient($net->{ratio}, $net->{median_ns}, $echo->{median_ns}), "$where: a null call by net, beside a TCP echo");
}
ok(scalar(pick($rows, where => 'guest', path => 'copy', what => 'null call')), 'null call by copy');
for my $cpu ('same CPU', 'other CPU') {
	my ($wake) = pick($rows, what => "futex wake, $cpu");
	my ($call) = pick($rows, where => 'host', path => 'host', what => "call of a sleeper, $cpu");
	ok($wake && $call && $call->{limit} eq $wake->{what} && quotient($call->{ratio}, $call->{median_ns}, $wake->{median_ns}),
		"a sleeper is woken on the $cpu, beside a futex");
}
ok(scalar(pick($rows, where => 'guest', path => 'dax', what => 'call of a sleeper')), 'and from the guest');
is(scalar(pick($rows, what => 'null call, nobody else')), 2, "the client's own instructions, on the host and in the guest");

# throughput, as CSV too
sub throughput_adds_up {
	my ($row) = @_;
	return quotient($row->{ratio}, $row->{rate}, $row->{reference_rate});
}
($rows) = bench('throughput', '--rounds', 1, '--bytes', '64K', @tree);
ok(!(grep { !throughput_adds_up($_) } @$rows), 'every ratio is the quotient');
for my $case (['host', 'host'], ['host', 'net'], ['guest', 'dax'], ['guest', 'copy'], ['guest', 'net']) {
	my %at = (where => $case->[0], path => $case->[1]);
	is_deeply([map { $_->{batch} } pick($rows, %at, unit => 'calls')], [1, 2, 4, 8, 16, 32, 64], "@$case: batches");
	is_deeply([map { $_->{block} } pick($rows, %at, function => $_)], [4096, 65536], "$_: blocks") for qw(sha256 checksum);
}

# No copy: a block of 8 MiB, and far less memory of the service's own.
($rows) = bench('throughput', '--rounds', 2, '--bytes', '8M', '--no-guest', '--path', 'host');
for my $row (pick($rows, block => 8 << 20)) {
	cmp_ok($row->{service_private_bytes}, '<', 4 << 20, "$row->{function}: the service has no copy of the block");
	cmp_ok($row->{service_moved_bytes}, '<', 64 << 10, 'nor does it read or write one') if $> == 0;
}
is(scalar(pick($rows, block => 8 << 20)), 2, 'both functions');

my $r = run([$VFUN, qw(bench throughput --csv --no-guest --rounds 1 --bytes 8K)]);
is($r->{status}, 0, 'bench throughput --csv');
my @lines = map { [split /,/, $_, -1] } split /\n/, $r->{out};
my $head = shift @lines;
is_deeply([grep { @$_ != @$head } @lines], [], 'CSV: as many fields in each line');
my @csv = map { my $l = $_; +{ map { $head->[$_] => $l->[$_] } 0 .. $#$head } } @lines;
is(scalar @csv, 2 * (7 + 2 * 2), 'CSV: batches, and two functions by two blocks');
ok(!(grep { !throughput_adds_up($_) } @csv), 'CSV: every ratio is the quotient');

# domains: the paper's experiment, a millionth of it
my $svg = tmp('domains.svg');
my %value = (factorial => '1551118753287382280224243016469303211063259720016986112000000000000', fibonacci => '12200160415121876738');
my $paper = { factorial => { 'Host-Host' => 26.02, 'Guest-Host' => 26.54 }, fibonacci => { 'Host-Host' => 29.62, 'Guest-Host' => 30.13 } };
($rows) = bench('domains', '--scale', 1000000, '--rounds', 2, '--plot', $svg, @tree);
for my $f (sort keys %value) {
	my %median;
	for my $domain ('In-process', 'Host-Host', 'Guest-Host', 'Guest-Net', 'Host-Net') {
		my @cells = pick($rows, function => $f, domain => $domain);
		is(scalar @cells, 9, "$f, $domain: five instances of the paper's, and four beyond");
		is_deeply([grep { $_->{value} ne $value{$f} || $_->{rounds} != 2 } @cells], [], 'the value, and two rounds each');
		is_deeply([grep { $_->{measured} > 2 * $_->{invocations} } @cells], [], 'no more invocations than asked for');
		is_deeply([grep { $_ > 500 || $_ < 490 } map { $_->{repetitions} * $_->{invocations} } @cells], [], 'as much work in each');
		my %distinct = map { (join(" ", @$_{qw(repetitions invocations)}) => 1) } @cells;
		is(scalar keys %distinct, 9, 'divided differently');
		$median{$domain}{ $_->{instance} } = $_->{median_s} for @cells;
		my @bad = grep { !quotient($_->{to_host_host}, $_->{median_s}, $median{'Host-Host'}{ $_->{instance} }) } $domain eq 'In-process' ? () : @cells;
		push @bad, grep { !quotient($_->{to_in_process}, $_->{median_s}, $median{'In-process'}{ $_->{instance} }) } @cells;
		is_deeply(\@bad, [], 'ratios are quotients');
		is((pick(\@cells, instance => '250K x 2k'))[0]{paper_s}, $paper->{$f}{$domain}, "the paper's figure") if $paper->{$f}{$domain};
	}
	my @guest = pick($rows, function => $f, domain => 'Guest-Host');
	is_deeply([grep { !quotient($_->{net_to_this}, (pick($rows, %$_{qw(function instance)}, domain => 'Guest-Net'))[0]{median_s}, $_->{median_s}) } @guest], [], "how much longer by net");
	is_deeply([grep { $_->{path} ne 'dax' } pick($rows, function => $f, domain => 'Guest-Host')], [], 'the guest calls by dax');
}
is_deeply([map { $_->{instance} } pick($rows, function => 'factorial', domain => 'Host-Host')],
	['500M x 1', '50M x 10', '5M x 100', '500K x 1k', '250K x 2k', '25K x 20k', '500 x 1M', '10 x 50M', '1 x 500M'], 'the instances');
my $depth = 0;
my $bad = 0;
my $xml = slurp($svg);
$xml =~ s/^<\?xml [^>]*\?>\n//;
while ($xml =~ s/^([^<]*)<(\/?)(\w+)((?: [\w-]+="[^"<]*")*)(\/?)>//) {
	$bad++ if $1 =~ /&(?!\w+;)/ || ($depth == 0 && $3 ne 'svg');
	$depth += $2 ? -1 : $5 ? 0 : 1;
}
ok($bad == 0 && $depth == 0 && $xml =~ /^\s*$/, 'the plot is well-formed');
like(slurp($svg), qr/Figure 7.*Figure 8.*Figure 9/s, 'the three figures');
cmp_ok(scalar(() = slurp($svg) =~ /<title>/g), '==', 2 * 9 * 3 + 9 * 6, 'with all bars');

$r = run([$VFUN, qw(bench domains --no-guest --scale 1000000 --rounds 1)]);
like($r->{out}, qr/^factorial\(51\) = $value{factorial}\n.*^ +Host-Host(?: +~?\d+\.\d{4}){9}\n.*the paper's seconds.*^ +Guest-Net +15\.98 /ms, 'as a table');
unlike($r->{out}, qr/^ +Guest-Host(?: +~?\d+\.\d{4}){9}$/m, 'without a guest: no line of it');

# By another path than shared memory: that stays the reference.
$r = run([$VFUN, qw(bench domains --path net --no-guest --scale 1000000 --rounds 1 --function factorial), '--instance', '250K x 2k']);
like($r->{out}, qr/^factorial\(51\) = $value{factorial}\n +repetitions x invocations +250K x 2k\n +here +100 x 5\n/m, '--path net, one cell');
like($r->{out}, qr/^ +Host-Host +\S+\n +Host-Net +\S+\n slower than in-process/m, 'beside Host-Host');
unlike($r->{out}, qr/fibonacci/, 'no other function');

# A QEMU that connects for its turn and is gone, as one whose KVM doesn't work: the next one has the turn.
spew(tmp('qemu'), <<"END");
#!/usr/bin/perl
use Socket;
my (\$name) = map { /^socket,id=turn,abstract=on,path=(.*)/ } \@ARGV;
if (\$name) {
	socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, pack('S a*', AF_UNIX, "\\0\$name")) or die;
	close S;
}
exec '$TREE/qemu', \@ARGV;
END
chmod 0755, tmp('qemu');
my @cell = ('--function', 'fibonacci', '--instance', '1 x 500M', '--scale', 1000000, '--rounds', 3);
($rows) = bench('domains', @cell, @tree, '--qemu', tmp('qemu'));
is_deeply([sort map { join " ", @$_{qw(domain rounds)} } @$rows], [map { ($_ . " 3") } qw(Guest-Host Guest-Net Host-Host Host-Net In-process)],
	'a dead connection: all rounds of all domains, and of one cell only');
spew(tmp('qemu'), slurp(tmp('qemu')) =~ s/^exec /s{^socket,id=turn,.*}{null,id=turn} for \@ARGV;\nexec /mr);
$r = run([$VFUN, qw(bench domains), @cell, @tree, '--qemu', tmp('qemu')], timeout => 120);
isnt($r->{status}, 0, 'nobody takes the turn: the run fails') or diag($r->{out});
like($r->{err}, qr/^vfun bench: the guest's last words: \S/m, "and shows the guest's last words");

# idle and activate; a host can have 500 instances
my $count = $> ? 5 : 500;
($rows) = bench('idle', '--count', $count, '--seconds', 1);
my ($services) = pick($rows, who => 'services');
is($services->{processes}, $count, 'as many services as asked for');
ok(quotient($services->{cpu_percent} / 100, $services->{cpu_ms} / 1000, $services->{seconds}), 'percent of a core') if $services->{cpu_ms} > 0;
cmp_ok($services->{private_kib_median}, '>', 0, 'private memory');

($rows) = bench('activate', '--count', 5, @tree);
for my $where (qw(host guest)) {
	my @phases = pick($rows, where => $where);
	is_deeply([map { $_->{phase} } @phases], ['negotiation', 'activation', 'release', 'all three'], "$where: phases");
	is_deeply([grep { $_->{times} != 5 } @phases], [], 'as often as asked for');
}

# targets: judged as they should be
($rows) = bench(qw(targets --try --rounds 1), @tree);
is(scalar @$rows, 13, 'all targets have a figure') or diag(map { "$_->{what}\n" } @$rows);
for my $row (@$rows) {
	my ($sign, $bound) = $row->{target} =~ /^([<>]=) ([\d.]+)$/;
	is($row->{met}, ($sign eq '<=' ? $row->{median} <= $bound : $row->{median} >= $bound) ? 'yes' : 'no', $row->{what});
	is($row->{runs}, 1, 'one run');
}

# A path that isn't to be had is left out, and says so.
for my $what (['latency', '--blocks', 1], [qw(throughput --rounds 1 --bytes 4K)]) {
	($rows, $j) = bench(@$what, qw(--no-guest --path dax));
	like("@{ $j->{left_out} }", qr/host, dax, \w+: path dax is not for a program on the host/, "$what->[0]: a path of guests, on the host");
}

# A vfund that is there is used, and a guest that can't be had is left out, with the reason.
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my @run = ('--run', $d->{run});
($rows, $j) = bench('latency', '--blocks', 1, @run, @tree, '--qemu', '/nonexistent');
is_deeply([pick($rows, where => 'guest')], [], 'no guest: no rows');
like("@{ $j->{left_out} }", qr{guest: .*/nonexistent}, 'and the reason');
$r = run([$VFUN, qw(bench latency --blocks 1 --no-guest --histogram), @run]);
like($r->{out}, qr/^host +host +null call .*^ +ns +share +calls\n +\d+ +0\.\d+ +\d+\n.*1\.000000 +50\n/ms, 'as text, with histograms');
($rows, $j) = bench('latency', '--blocks', 1, '--no-guest', '--path', 'net', @run);
like("@{ $j->{left_out} }", qr/host, net, pingpong: set VFUN_SERVER/, 'path net without a server');
$r = finish($d->guest('tree', [qw(vfun bench domains --scale 1000000 --rounds 1)]), 120);
like($r->{out}, qr/^ seconds, mean\n +In-process(?: +~?\d+\.\d{4}){9}\n +Guest-Host(?: +~?\d+\.\d{4}){9}\n slower than in-process by %, of medians\n +Guest-Host.*\n the paper/m,
	'in a guest of its own: beside an in-process call, and no heading without a line') or diag($r->{out}, $r->{err});
like(vfun('status', @run)->{out}, qr/ 0 instances/, 'no instance is left');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# Interrupted
my $job = start([$VFUN, qw(bench idle --count 3 --seconds 600)]);
ok(wait_until(30, sub { grep { $_->[1] eq 'vfun-service' || $_->[1] eq 'service' } descendants() }), 'in the middle of it');
kill 'TERM', $job->{pid};
is(finish($job, 30)->{status}, 143, 'SIGTERM ends it');
nothing_left('after that');

# Wrong use
for my $case (
	[2, qr/no benchmark named/],
	[2, qr/'nosuch' is not a benchmark/, 'nosuch'],
	[2, qr/'word' is one argument too many/, 'latency', 'word'],
	[2, qr/vfun bench: .*'--nosuch'/, 'latency', '--nosuch'],
	[2, qr/--seconds is not an option of latency/, 'latency', '--seconds', 5],
	[2, qr/there is no path 'nosuch'/, 'latency', '--path', 'nosuch'],
	[2, qr/there is no path '\?'/, 'latency', '--path', '?'],
	[2, qr/the paper has no function sha256/, 'domains', '--function', 'sha256'],
	[2, qr/the paper has no instance 7 x 7/, 'domains', '--instance', '7 x 7'],
	[2, qr/'x' is not a number/, 'latency', '--blocks', 'x'],
	[2, qr/'0' is not a number/, 'latency', '--blocks', 0],
	[4, qr/no vfund and no share at/, 'latency', '--run', tmp('nosuch')],
	[4, qr/no vfund and no share at/, 'latency', '--inside'],
	[8, qr{/nonexistent/x}, qw(domains --no-guest --scale 1000000 --rounds 1 --plot /nonexistent/x)])
{
	my ($status, $text, @args) = @$case;
	$r = run([$VFUN, 'bench', @args]);
	is($r->{status}, $status, "$status: bench @args");
	like($r->{err}, $text, 'and says why');
}
is(vfun('bench', 'latency', '--help')->{status}, 0, '--help');

done_testing();
