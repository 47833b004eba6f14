"""Thirteen numeric kernels of different shape, in the plain Python that a model would write.

Each is a function and arguments for it; the benchmark takes the text of this
module, so nothing here knows that it may be accelerated.
"""

import math


def mandelbrot(width, height, limit):
    total = 0
    for row in range(height):
        y0 = 2.0 * row / height - 1.0
        for column in range(width):
            x0 = 3.0 * column / width - 2.0
            x = 0.0
            y = 0.0
            steps = 0
            while x * x + y * y <= 4.0 and steps < limit:
                x, y = x * x - y * y + x0, 2.0 * x * y + y0
                steps += 1
            total += steps
    return total


def n_body(xs, ys, zs, vxs, vys, vzs, masses, steps, dt):
    n = len(xs)
    for _ in range(steps):
        for i in range(n):
            for j in range(i + 1, n):
                dx = xs[i] - xs[j]
                dy = ys[i] - ys[j]
                dz = zs[i] - zs[j]
                squared = dx * dx + dy * dy + dz * dz
                mag = dt / (squared * math.sqrt(squared))
                vxs[i] -= dx * masses[j] * mag
                vys[i] -= dy * masses[j] * mag
                vzs[i] -= dz * masses[j] * mag
                vxs[j] += dx * masses[i] * mag
                vys[j] += dy * masses[i] * mag
                vzs[j] += dz * masses[i] * mag
        for i in range(n):
            xs[i] += dt * vxs[i]
            ys[i] += dt * vys[i]
            zs[i] += dt * vzs[i]
    energy = 0.0
    for i in range(n):
        energy += 0.5 * masses[i] * (vxs[i] * vxs[i] + vys[i] * vys[i] + vzs[i] * vzs[i])
    return energy


def levenshtein(a, b):
    previous = list(range(len(b) + 1))
    for i, ca in enumerate(a, 1):
        current = [i]
        for j, cb in enumerate(b, 1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (ca != cb)))
        previous = current
    return previous[-1]


def sieve(limit):
    is_prime = [True] * (limit + 1)
    is_prime[0] = is_prime[1] = False
    i = 2
    while i * i <= limit:
        if is_prime[i]:
            for multiple in range(i * i, limit + 1, i):
                is_prime[multiple] = False
        i += 1
    return sum([1 for flag in is_prime if flag])


def matrix_multiply(a, b):
    n, m, p = len(a), len(b), len(b[0])
    product = [[0] * p for _ in range(n)]
    for i in range(n):
        for j in range(p):
            total = 0
            for k in range(m):
                total += a[i][k] * b[k][j]
            product[i][j] = total
    return product


def matrix_element(i, j):
    return 1.0 / ((i + j) * (i + j + 1) // 2 + i + 1)


def times(v, transposed):
    n = len(v)
    result = []
    for i in range(n):
        if transposed:
            result.append(sum(matrix_element(j, i) * v[j] for j in range(n)))
        else:
            result.append(sum(matrix_element(i, j) * v[j] for j in range(n)))
    return result


def spectral_norm(n, rounds):
    u = [1.0] * n
    v = u
    for _ in range(rounds):
        v = times(times(u, False), True)
        u = times(times(v, False), True)
    top = sum(u[i] * v[i] for i in range(n))
    bottom = sum(x * x for x in v)
    return math.sqrt(top / bottom)


def fannkuch(n):
    p = list(range(n))
    count = [0] * n
    best = checksum = 0
    r = n
    number = 0
    while True:
        while r != 1:
            count[r - 1] = r
            r -= 1
        q = p[:]
        flips = 0
        while q[0] != 0:
            low, high = 0, q[0]
            while low < high:
                q[low], q[high] = q[high], q[low]
                low += 1
                high -= 1
            flips += 1
        best = max(best, flips)
        checksum += flips if number % 2 == 0 else -flips
        while True:
            if r == n:
                return checksum, best
            first = p[0]
            for i in range(r):
                p[i] = p[i + 1]
            p[r] = first
            count[r] -= 1
            if count[r] > 0:
                break
            r += 1
        number += 1


def collatz(limit):
    best, best_length = 1, 1
    for start in range(1, limit):
        n, length = start, 1
        while n != 1:
            if n % 2 == 0:
                n //= 2
            else:
                n = 3 * n + 1
            length += 1
        if length > best_length:
            best, best_length = start, length
    return best, best_length


def floyd_warshall(distance):
    n = len(distance)
    for k in range(n):
        for i in range(n):
            through = distance[i][k]
            for j in range(n):
                distance[i][j] = min(distance[i][j], through + distance[k][j])


def life(grid, generations):
    rows, columns = len(grid), len(grid[0])
    for _ in range(generations):
        new = [[0] * columns for _ in range(rows)]
        for r in range(rows):
            for c in range(columns):
                alive = 0
                for dr in (-1, 0, 1):
                    for dc in [-1, 0, 1]:
                        if dr != 0 or dc != 0:
                            alive += grid[(r + dr) % rows][(c + dc) % columns]
                if alive == 3 or (alive == 2 and grid[r][c] == 1):
                    new[r][c] = 1
        grid = new
    return grid


def pi_by_chance(samples, seed):
    inside = 0
    state = seed
    for _ in range(samples):
        state = (1103515245 * state + 12345) % 2147483648
        x = state / 2147483648
        state = (1103515245 * state + 12345) % 2147483648
        y = state / 2147483648
        if x * x + y * y <= 1.0:
            inside += 1
    return 4.0 * inside / samples


def fft(real, imaginary):
    n = len(real)
    j = 0
    for i in range(1, n):
        bit = n >> 1
        while j & bit:
            j ^= bit
            bit >>= 1
        j |= bit
        if i < j:
            real[i], real[j] = real[j], real[i]
            imaginary[i], imaginary[j] = imaginary[j], imaginary[i]
    length = 2
    while length <= n:
        angle = -2.0 * math.pi / length
        step_real, step_imaginary = math.cos(angle), math.sin(angle)
        for start in range(0, n, length):
            wr, wi = 1.0, 0.0
            for k in range(start, start + length // 2):
                other = k + length // 2
                tr = real[other] * wr - imaginary[other] * wi
                ti = real[other] * wi + imaginary[other] * wr
                real[other] = real[k] - tr
                imaginary[other] = imaginary[k] - ti
                real[k] += tr
                imaginary[k] += ti
                wr, wi = wr * step_real - wi * step_imaginary, wr * step_imaginary + wi * step_real
        length *= 2


def power_modulo(base, exponent, modulus):
    result = 1
    base %= modulus
    while exponent > 0:
        if exponent & 1:
            result = result * base % modulus
        base = base * base % modulus
        exponent >>= 1
    return result


def gcd(a, b):
    while b:
        a, b = b, a % b
    return a


def fermat_primes(limit):
    """Count what passes Fermat's test for bases coprime to it."""
    found = 0
    for n in range(3, limit, 2):
        passes = True
        for base in (2, 3, 5, 7):
            if gcd(base, n) == 1 and power_modulo(base, n - 1, n) != 1:
                passes = False
                break
        if passes:
            found += 1
    return found
