#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# conform.t - the conformance kit of t/conform: vfund keeps a server's rules, our clients a client's; and it finds who doesn't
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;
use Man;
use Python;

sub kit {
	my ($half, @args) = @_;
	return run([host_python(), "t/conform/$half.py", @args], timeout => 300, env => { PYTHONPATH => 'proto' });
}

for my $workers (1, 4) {
	my $d = Vfun->new(conf => "[function factorial]\nslots = 64\narena = 16M\nspin = 0\nworkers = $workers\n[host]\nfunctions = factorial\nmemory = 30M\n");
	ok($d->up, "vfund, $workers workers") or BAIL_OUT($d->log);
	my $r = kit('server', $d->{run});
	is($r->{status}, 0, 'keeps a server\'s rules') or diag($r->{out}, $r->{err}, $d->log);
	is(scalar(() = $r->{out} =~ /^ok S\d+ /mg), 24, 'all 24');
	is_deeply([$d->down], [], 'it stops and leaves nothing');
}

my ($example) = map { $_->[2] } grep { $_->[0] eq 'file' && $_->[1] eq 'client.py' } man_examples('man/vfun-protocol.7');
my $python = spew(tmp('python.py'), <<'END');
import sys, vfun

with vfun.open("factorial", arena=65536) as factorial:
    print(factorial(int(sys.argv[1])))
END
for my $case (['vfun call', $VFUN, 'call', '--path', 'host', 'factorial'], ['the page\'s example', host_python(), spew(tmp('example.py'), $example)],
	['vfun.py', host_python(), $python])
{
	my ($who, @command) = @$case;
	my $r = kit('client', @command);
	is($r->{status}, 0, "$who keeps a client's rules") or diag($r->{out}, $r->{err});
	is(scalar(() = $r->{out} =~ /^ok C\d+ /mg), 13, 'all that can be tried on the host');
}

# Who doesn't
for my $case ([qr/^not ok C1 /m, 'sh', '-c', 'echo 120'], [qr/^not ok C10 /m, 'sh', '-c', "$VFUN call --path host factorial \$0 || exit 0"]) {
	my ($text, @command) = @$case;
	my $r = kit('client', @command);
	is($r->{status}, 1, "found: @command");
	like($r->{out}, $text, 'by the rule that it breaks');
}
done_testing();
