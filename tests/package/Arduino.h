/* As much of Arduino's core as the sketch uses. */
#include <stdint.h>
#include <stdio.h>

struct {
  void begin(unsigned long) {}
  void println(const char *text) { puts(text); }
  void println(double value, int digits) { printf("%.*f\n", digits, value); }
} Serial;

void setup();
void loop();

int main() {
  setup();
  for (int i = 0; i < 300; i++) loop();
}
